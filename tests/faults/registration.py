"""Faults in what modules hold, and in how it comes into them."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from . import fault, patched
from .freezing import FREEZING, ZEROING


@fault("registration/parameters_goes_through_every_parameter_once", *FREEZING[:1], *ZEROING)
def parameters_of_grandchildren_are_left_out():
    """parameters() gives those of a module and of its children, but of no module further down."""

    def parameters(module, recurse=True):
        found = list(module._parameters.values())
        for child in module.children() if recurse else ():
            found += child._parameters.values()
        return iter(list({id(p): p for p in found if p is not None}.values()))

    with patched(nn.Module, "parameters", lambda _: parameters):
        yield


@fault("registration/parameters_goes_through_every_parameter_once")
def a_shared_parameter_comes_as_often_as_it_is_shared():
    """parameters() gives a parameter that two modules share twice."""

    def parameters(module, recurse=True):
        found = [p for part in (module.modules() if recurse else [module]) for p in part._parameters.values()]
        return (p for p in found if p is not None)

    with patched(nn.Module, "parameters", lambda _: parameters):
        yield


@fault("registration/parameters_goes_through_every_parameter_once", *FREEZING[:1])
def frozen_parameters_are_left_out():
    """parameters() gives those only that require grad."""

    def make(true):
        return lambda module, recurse=True: (p for p in true(module, recurse) if p.requires_grad)

    with patched(nn.Module, "parameters", make):
        yield


@fault("registration/parameters_goes_through_every_parameter_once")
def names_of_parameters_lack_their_path():
    """named_parameters() gives the last part of a name only."""

    def make(true):
        return lambda *args, **kwargs: ((n.rpartition(".")[2], p) for n, p in true(*args, **kwargs))

    with patched(nn.Module, "named_parameters", make):
        yield


@fault("registration/parameters_goes_through_every_parameter_once")
def recurse_is_ignored():
    """parameters(recurse=False) gives the parameters of children, too."""
    with patched(nn.Module, "parameters", lambda true: lambda module, recurse=True: true(module, True)):
        yield


@fault("registration/parameters_come_in_a_fixed_order")
def parameters_come_last_first():
    """parameters() begins at the end."""

    def make(true):
        return lambda module, recurse=True: iter(list(true(module, recurse))[::-1])

    with patched(nn.Module, "parameters", make):
        yield


@fault("registration/parameters_come_in_a_fixed_order")
def children_come_before_the_module():
    """parameters() gives those of children before the module's own."""

    def parameters(module, recurse=True):
        found = {id(p): p for child in module.children() if recurse for p in parameters(child)}
        found |= {id(p): p for p in module._parameters.values() if p is not None}
        return iter(found.values())

    with patched(nn.Module, "parameters", lambda _: parameters):
        yield


@contextlib.contextmanager
def assigning(spoil: Callable[[nn.Module, str, Any], bool]) -> Iterator[None]:
    """Let assigning an attribute to a module do what spoil(module, name, value) does, if it gives True."""

    def make(true: Callable[..., None]) -> Callable[..., None]:
        return lambda module, name, value: None if spoil(module, name, value) else true(module, name, value)

    with patched(nn.Module, "__setattr__", make):
        yield


@fault("registration/assigning_a_parameter_registers_it")
def leaves_are_registered_like_parameters():
    """A leaf that requires grad is registered as a parameter when it is assigned."""

    def register(module, name, value):
        if isinstance(value, torch.Tensor) and value.is_leaf and value.requires_grad:
            module._parameters[name] = value
            return True
        return False

    with assigning(register):
        yield


@fault("registration/assigning_a_parameter_registers_it")
def parameters_are_not_registered_under_no_grad():
    """A Parameter assigned while grad mode is off is a mere attribute."""

    def forget(module, name, value):
        if isinstance(value, nn.Parameter) and not torch.is_grad_enabled():
            object.__setattr__(module, name, value)
            return True
        return False

    with assigning(forget):
        yield


@fault("registration/assigning_a_parameter_registers_it")
def frozen_parameters_are_not_registered():
    """A Parameter that doesn't require grad is a mere attribute."""

    def forget(module, name, value):
        if isinstance(value, nn.Parameter) and not value.requires_grad:
            object.__setattr__(module, name, value)
            return True
        return False

    with assigning(forget):
        yield


@fault("registration/parameters_of_a_new_layer_are_leaves_that_require_grad")
def parameters_made_under_no_grad_do_not_require_grad():
    """A Parameter made while grad mode is off doesn't require grad."""

    def make(true):
        def new(cls, data=None, requires_grad=True):
            return true(cls, data, requires_grad and torch.is_grad_enabled())

        return new

    with patched(nn.Parameter, "__new__", make):
        yield


@fault("registration/parameters_of_a_new_layer_are_leaves_that_require_grad")
def one_dimensional_parameters_do_not_require_grad():
    """A new layer's parameters of one dimension, such as biases, don't require grad."""

    def make(true):
        def new(cls, data=None, requires_grad=True):
            return true(cls, data, requires_grad and (data is None or data.dim() != 1))

        return new

    with patched(nn.Parameter, "__new__", make):
        yield


@fault(
    "registration/parameters_of_a_new_layer_are_leaves_that_require_grad",
    "modules/eval_and_train_switch_a_module_and_all_in_it",
)
def new_modules_are_in_evaluation_mode():
    """A new module is in evaluation mode."""

    def make(true):
        def init(module, *args, **kwargs):
            true(module, *args, **kwargs)
            object.__setattr__(module, "training", False)

        return init

    with patched(nn.Module, "__init__", make):
        yield


@contextlib.contextmanager
def making_parameters(spoil: Callable[[Callable[..., Any], Any, bool], Any]) -> Iterator[None]:
    """Let nn.Parameter(data, requires_grad) give spoil(what makes it truly, data, requires_grad)."""

    def make(true: Callable[..., Any]) -> Callable[..., Any]:
        def new(cls, data=None, requires_grad=True):
            return spoil(lambda *args: true(cls, *args), data, requires_grad)

        return new

    with patched(nn.Parameter, "__new__", make):
        yield


@fault("registration/a_parameter_is_a_leaf_over_the_memory_of_its_tensor")
def parameters_copy_what_requires_grad():
    """nn.Parameter has memory of its own if its tensor requires grad."""

    def copy(true, data, flag):
        return true(data.detach().clone() if data is not None and data.requires_grad else data, flag)

    with making_parameters(copy):
        yield


@fault("registration/a_parameter_is_a_leaf_over_the_memory_of_its_tensor")
def a_parameter_of_a_parameter_is_the_same_one():
    """nn.Parameter of a Parameter gives it back, with its flag set."""

    def give_back(true, data, flag):
        return data.requires_grad_(flag) if type(data) is nn.Parameter else true(data, flag)

    with making_parameters(give_back):
        yield


@fault("registration/a_parameter_is_a_leaf_over_the_memory_of_its_tensor")
def parameters_inherit_the_flag_of_results():
    """nn.Parameter of a tensor that isn't a leaf requires grad whatever it is told."""
    with making_parameters(lambda true, data, flag: true(data, flag or (data is not None and not data.is_leaf))):
        yield


@fault("registration/a_parameter_is_a_leaf_over_the_memory_of_its_tensor")
def parameters_freeze_what_they_are_made_of():
    """nn.Parameter stops a leaf that requires grad from requiring it."""

    def freeze(true, data, flag):
        made = true(data, flag)
        if data is not None and data.is_leaf and data.requires_grad:
            data.requires_grad_(False)
        return made

    with making_parameters(freeze):
        yield


@fault("registration/a_parameter_of_integers_is_one_that_does_not_require_grad")
def parameters_of_integers_never_require_grad():
    """nn.Parameter of integers ignores that it is to require grad, without an error."""

    def ignore(true, data, flag):
        return true(data, flag and (data is None or data.is_floating_point()))

    with making_parameters(ignore):
        yield


@fault("registration/a_parameter_of_integers_is_one_that_does_not_require_grad")
def booleans_cannot_be_parameters():
    """Parameters of booleans are no parameters of a module."""

    def make(true):
        def named(module, *args, **kwargs):
            return ((n, p) for n, p in true(module, *args, **kwargs) if p.dtype is not torch.bool)

        return named

    with patched(nn.Module, "named_parameters", make):
        yield


@contextlib.contextmanager
def registering(spoil: Callable[[nn.Module, str, Any, Callable[..., None]], None]) -> Iterator[None]:
    """Let register_parameter do spoil(module, name, parameter, what it does truly)."""

    def make(true: Callable[..., None]) -> Callable[..., None]:
        return lambda module, name, p: spoil(module, name, p, lambda *args: true(module, *args))

    with patched(nn.Module, "register_parameter", make):
        yield


@fault("registration/register_parameter_does_what_assigning_does")
def register_parameter_copies():
    """register_parameter() registers a copy."""
    with registering(lambda module, name, p, true: true(name, p if p is None else nn.Parameter(p.detach().clone()))):
        yield


@fault("registration/register_parameter_does_what_assigning_does")
def frozen_parameters_are_registered_as_none():
    """register_parameter() registers None for a parameter that doesn't require grad."""
    with registering(lambda module, name, p, true: true(name, p if p is None or p.requires_grad else None)):
        yield


@fault("registration/register_parameter_does_what_assigning_does")
def registering_makes_parameters_require_grad():
    """register_parameter() lets every parameter require grad."""
    with registering(lambda module, name, p, true: true(name, p if p is None else p.requires_grad_())):
        yield


@fault("registration/what_cannot_be_registered_changes_nothing")
def refused_names_are_registered_all_the_same():
    """register_parameter() raises its error for a name with a dot after it registered the parameter."""

    def register(module, name, p, true):
        if isinstance(name, str) and "." in name:
            module._parameters[name] = p
        true(name, p)

    with registering(register):
        yield


@fault("registration/what_cannot_be_registered_changes_nothing")
def a_tensor_replaces_a_parameter():
    """A tensor assigned to the name of a parameter takes its place."""

    def replace(module, name, value):
        if name in vars(module).get("_parameters", {}) and type(value) is torch.Tensor:
            module._parameters[name] = value
            return True
        return False

    with assigning(replace):
        yield


@fault("registration/what_cannot_be_registered_changes_nothing")
def parameters_that_are_no_leaves_are_detached_and_registered():
    """A Parameter that was changed in place by what requires grad is detached and registered."""

    def register(module, name, p, true):
        true(name, p.detach_() if isinstance(p, nn.Parameter) and not p.is_leaf else p)

    with registering(register):
        yield


@fault("registration/apply_goes_through_every_module")
def apply_begins_with_the_module_itself():
    """apply() calls the function with the module before the modules inside."""

    def apply(module, fn):
        fn(module)
        for child in module.children():
            child.apply(fn)
        return module

    with patched(nn.Module, "apply", lambda _: apply):
        yield


@fault("registration/apply_goes_through_every_module")
def apply_leaves_grandchildren_out():
    """apply() calls the function with the module's children and the module only."""

    def apply(module, fn):
        for part in (*module.children(), module):
            fn(part)
        return module

    with patched(nn.Module, "apply", lambda _: apply):
        yield


@fault("registration/a_parameter_that_was_replaced_is_not_the_modules_any_more")
def replacing_a_parameter_copies_into_it():
    """A Parameter assigned to the name of another is copied into it."""

    def copy(module, name, value):
        old = vars(module).get("_parameters", {}).get(name)
        if old is not None and isinstance(value, nn.Parameter):
            old.data.copy_(value.detach())
            return True
        return False

    with assigning(copy):
        yield


@fault("registration/a_parameter_that_was_replaced_is_not_the_modules_any_more")
def a_new_parameter_inherits_the_gradient():
    """A Parameter assigned to the name of another takes over its .grad."""

    def inherit(module, name, value):
        old = vars(module).get("_parameters", {}).get(name)
        if old is not None and isinstance(value, nn.Parameter) and old.grad is not None:
            value.grad = old.grad
        return False

    with assigning(inherit):
        yield


@fault("registration/a_parameter_that_was_replaced_is_not_the_modules_any_more")
def deleted_parameters_lose_their_gradient():
    """A parameter that is deleted from a module loses its .grad."""

    def make(true):
        def delete(module, name):
            if name in module._parameters and module._parameters[name] is not None:
                module._parameters[name].grad = None
            true(module, name)

        return delete

    with patched(nn.Module, "__delattr__", make):
        yield
