"""Faults in buffers, in lists and dictionaries of parameters, and in lazy layers."""

import torch
from torch import nn

from . import fault, patched
from .registration import assigning


@fault("containers/buffers_are_kept_as_they_are_and_left_alone")
def buffers_are_detached():
    """register_buffer() registers the tensor detached."""

    def make(true):
        def register(module, name, tensor, persistent=True):
            true(module, name, tensor.detach() if isinstance(tensor, torch.Tensor) else tensor, persistent)

        return register

    with patched(nn.Module, "register_buffer", make):
        yield


@fault("containers/buffers_are_kept_as_they_are_and_left_alone")
def zero_grad_resets_buffers():
    """zero_grad() of a module makes the .grad of its buffers None, too."""

    def make(true):
        def zero_grad(module, set_to_none=True):
            for buffer in module.buffers():
                if buffer.is_leaf:
                    buffer.grad = None
            true(module, set_to_none)

        return zero_grad

    with patched(nn.Module, "zero_grad", make):
        yield


@fault("containers/buffers_are_kept_as_they_are_and_left_alone")
def requires_grad_reaches_buffers():
    """requires_grad_() of a module sets the flag of its floating-point buffers, too."""

    def make(true):
        def requires_grad(module, flag=True):
            for buffer in module.buffers():
                if buffer.is_leaf and buffer.is_floating_point():
                    buffer.requires_grad_(flag)
            return true(module, flag)

        return requires_grad

    with patched(nn.Module, "requires_grad_", make):
        yield


@fault("containers/assigning_a_buffer_registers_it")
def new_buffers_require_grad():
    """A torch.nn.Buffer of floating point requires grad once it is assigned."""

    def require(module, name, value):
        if isinstance(value, nn.Buffer) and value.is_floating_point():
            value.requires_grad_()
        return False

    with assigning(require):
        yield


@fault("containers/assigning_a_buffer_registers_it")
def a_tensor_does_not_take_a_buffers_place():
    """A tensor assigned to the name of a buffer is copied into the buffer."""

    def copy(module, name, value):
        buffer = vars(module).get("_buffers", {}).get(name)
        if buffer is not None and type(value) is torch.Tensor:
            buffer.copy_(value)
            return True
        return False

    with assigning(copy):
        yield


@fault("containers/parameter_lists_and_dicts_make_parameters_of_tensors")
def appended_tensors_stay_tensors():
    """ParameterList.append() appends a tensor as it is."""

    def make(true):
        def append(held, value):
            index = len(held)
            held._size += 1
            setattr(held, str(index), value)
            return held

        return append

    with patched(nn.ParameterList, "append", make):
        yield


@fault("containers/parameter_lists_and_dicts_make_parameters_of_tensors")
def dicts_thaw_parameters():
    """ParameterDict makes a new Parameter, one that requires grad, of a Parameter that doesn't."""

    def make(true):
        def put(held, key, value):
            frozen = isinstance(value, nn.Parameter) and not value.requires_grad
            true(held, key, nn.Parameter(value) if frozen else value)

        return put

    with patched(nn.ParameterDict, "__setitem__", make):
        yield


@fault("containers/parameter_lists_and_dicts_make_parameters_of_tensors")
def lists_keep_the_flag_of_a_tensor():
    """ParameterList makes a frozen Parameter of a tensor that doesn't require grad."""

    def make(true):
        def put(held, index, value):
            plain = isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter)
            true(held, index, nn.Parameter(value, requires_grad=value.requires_grad) if plain else value)

        return put

    with patched(nn.ParameterList, "__setitem__", make):
        yield


@fault("containers/a_lazy_layer_gets_parameters_when_it_is_called")
def initializing_under_no_grad_freezes_the_bias():
    """A lazy layer that is called under no_grad for the first time gets a bias that doesn't require grad."""

    def make(true):
        def materialize(p, shape, *args, **kwargs):
            true(p, shape, *args, **kwargs)
            if len(shape) == 1 and isinstance(p, nn.Parameter):
                p.requires_grad_(False)

        return materialize

    with patched(nn.parameter.UninitializedTensorMixin, "materialize", make):
        yield


@fault("containers/a_lazy_layer_gets_parameters_when_it_is_called")
def a_lazy_layer_gets_a_new_weight():
    """A lazy linear layer replaces its uninitialized weight by a new parameter."""

    def make(true):
        def initialize(layer, x):
            layer.weight = nn.parameter.UninitializedParameter(device=layer.weight.device, dtype=layer.weight.dtype)
            true(layer, x)

        return initialize

    with patched(nn.LazyLinear, "initialize_parameters", make):
        yield
