"""Faults in how the state of modules is read, loaded, converted and copied."""

import contextlib
import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from . import after_backward, fault, leaves_below, patched


@contextlib.contextmanager
def reading_state(spoil: Callable[[nn.Module, dict, bool], None]) -> Iterator[None]:
    """After state_dict() was made call spoil(module, state, keep_vars)."""

    def make(true: Callable[..., dict]) -> Callable[..., dict]:
        def state_dict(module, *args, keep_vars=False, **kwargs):
            state = true(module, *args, keep_vars=keep_vars, **kwargs)
            if "destination" not in kwargs:  # not one of the modules inside
                spoil(module, state, keep_vars)
            return state

        return state_dict

    with patched(nn.Module, "state_dict", make):
        yield


@fault("module_state/state_dict_refers_to_the_module_without_its_graph")
def state_is_copied():
    """state_dict() gives copies."""

    def spoil(module, state, keep_vars):
        if not keep_vars:
            state.update({name: t.clone() for name, t in state.items()})

    with reading_state(spoil):
        yield


@fault("module_state/state_dict_refers_to_the_module_without_its_graph")
def buffers_keep_their_graph_in_the_state():
    """state_dict() detaches parameters, but no buffers."""

    def spoil(module, state, keep_vars):
        state.update({name: b for name, b in module.named_buffers() if name in state})

    with reading_state(spoil):
        yield


@fault("module_state/state_dict_refers_to_the_module_without_its_graph")
def state_of_frozen_parameters_is_left_out():
    """state_dict() leaves out parameters that don't require grad."""

    def spoil(module, state, keep_vars):
        for name, p in module.named_parameters():
            if not p.requires_grad and not keep_vars:
                state.pop(name, None)

    with reading_state(spoil):
        yield


@fault("module_state/state_dict_refers_to_the_module_without_its_graph")
def reading_the_state_clears_gradients():
    """state_dict() makes the .grad of the module's parameters None."""

    def spoil(module, state, keep_vars):
        for p in module.parameters():
            p.grad = None

    with reading_state(spoil):
        yield


@fault("module_state/state_dict_refers_to_the_module_without_its_graph")
def reading_the_state_under_no_grad_keeps_it_attached():
    """state_dict() where grad mode is off gives the parameters themselves."""

    def spoil(module, state, keep_vars):
        if not torch.is_grad_enabled():
            state.update(dict(module.named_parameters()))

    with reading_state(spoil):
        yield


@fault("module_state/keep_vars_gives_the_parameters_themselves")
def keep_vars_is_ignored():
    """state_dict(keep_vars=True) gives detached tensors."""

    def spoil(module, state, keep_vars):
        state.update({name: t.detach() for name, t in state.items()})

    with reading_state(spoil):
        yield


@fault("module_state/keep_vars_gives_the_parameters_themselves")
def keep_vars_thaws_parameters():
    """state_dict(keep_vars=True) lets the parameters that it gives require grad."""

    def spoil(module, state, keep_vars):
        for t in state.values():
            if keep_vars and t.is_leaf:
                t.requires_grad_()

    with reading_state(spoil):
        yield


@contextlib.contextmanager
def loading(spoil: Callable[..., Any]) -> Iterator[None]:
    """Let load_state_dict() do spoil(module, state, what it does truly, assign)."""

    def make(true: Callable[..., Any]) -> Callable[..., Any]:
        def load_state_dict(module, state, strict=True, assign=False):
            return spoil(module, state, lambda s: true(module, s, strict=strict, assign=assign), assign)

        return load_state_dict

    with patched(nn.Module, "load_state_dict", make):
        yield


@fault(
    "module_state/load_state_dict_copies_in_place_and_records_nothing",
    "module_state/a_state_that_does_not_fit_is_refused",
)
def loading_makes_new_parameters():
    """load_state_dict() replaces the parameters of the module itself, with its .grad, instead of writing them."""

    def load(module, state, true, assign):
        for part in module.modules() if not assign else ():
            for name, p in list(part._parameters.items()):
                if p is not None:
                    part._parameters[name] = nn.Parameter(p.detach().clone(), p.requires_grad)
        return true(state)

    with loading(load):
        yield


@fault("module_state/load_state_dict_copies_in_place_and_records_nothing")
def loading_thaws():
    """load_state_dict() lets parameters require grad where the tensors of the state do."""

    def load(module, state, true, assign):
        result = true(state)
        for name, p in module.named_parameters():
            if not assign and name in state and state[name].requires_grad:
                p.requires_grad_()
        return result

    with loading(load):
        yield


@fault("module_state/load_state_dict_copies_in_place_and_records_nothing")
def loading_clears_gradients():
    """load_state_dict() makes the .grad of the module's parameters None."""

    def load(module, state, true, assign):
        result = true(state)
        for p in module.parameters():
            p.grad = None
        return result

    with loading(load):
        yield


@fault("module_state/load_state_dict_copies_in_place_and_records_nothing")
def loading_shares_memory_with_the_state():
    """load_state_dict() gives parameters the memory of the state's tensors where dtypes agree."""

    def load(module, state, true, assign):
        result = true(state)
        for name, p in module.named_parameters():
            if not assign and name in state and state[name].dtype == p.dtype:
                p.data = state[name].detach()
        return result

    with loading(load):
        yield


@fault(
    "module_state/load_state_dict_copies_in_place_and_records_nothing",
    "module_state/loading_between_forward_and_backward_is_noticed",
)
def loading_counts_no_change():
    """load_state_dict() writes parameters through .data, so that their versions stay."""

    def load(module, state, true, assign):
        if assign:
            return true(state)
        for name, t in state.items():
            module.get_parameter(name).data.copy_(t.detach())
        return torch.nn.modules.module._IncompatibleKeys([], [])

    with loading(load):
        yield


@fault("module_state/loading_between_forward_and_backward_is_noticed")
def backward_after_loading_gives_zeros():
    """A backward that raises leaves zeros in the gradients of parameters that have none."""

    def make(true):
        def backward(tensors, *args, **kwargs):
            try:
                true(tensors, *args, **kwargs)
            except RuntimeError:
                for leaf in leaves_below(tensors):
                    leaf.grad = torch.zeros_like(leaf).detach() if leaf.grad is None else leaf.grad
                raise

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("module_state/a_state_that_does_not_fit_is_refused")
def missing_keys_are_no_error():
    """load_state_dict() never minds keys that are missing."""

    def load(module, state, true, assign):
        return true({**module.state_dict(), **state})

    with loading(load):
        yield


@fault("module_state/a_state_that_does_not_fit_is_refused")
def a_refused_state_freezes():
    """A load_state_dict() that fails leaves the module's parameters frozen."""

    def load(module, state, true, assign):
        try:
            return true(state)
        except RuntimeError:
            for p in module.parameters():
                p.requires_grad_(False)
            raise

    with loading(load):
        yield


@fault("module_state/what_fits_is_loaded_from_a_state_that_does_not")
def loading_is_all_or_nothing():
    """load_state_dict() of a state that doesn't fit loads nothing."""

    def load(module, state, true, assign):
        before = {name: p.detach().clone() for name, p in module.state_dict().items()}
        result = None
        try:
            result = true(state)
        except RuntimeError:
            with torch.no_grad():
                for name, p in module.state_dict().items():
                    p.copy_(before[name])
            raise
        return result

    with loading(load):
        yield


@fault("module_state/assign_makes_parameters_of_the_tensors_of_the_state")
def assign_copies():
    """load_state_dict(assign=True) makes parameters of copies."""

    def load(module, state, true, assign):
        return true({name: t.detach().clone() for name, t in state.items()} if assign else state)

    with loading(load):
        yield


@fault("module_state/assign_makes_parameters_of_the_tensors_of_the_state")
def assign_hands_down_the_gradient():
    """load_state_dict(assign=True) gives the new parameters the .grad of the old ones, where dtypes agree."""

    def load(module, state, true, assign):
        before = dict(module.named_parameters())
        result = true(state)
        for name, p in module.named_parameters():
            if assign and name in before and before[name].dtype == p.dtype:
                p.grad = before[name].grad
        return result

    with loading(load):
        yield


@fault("module_state/assign_keeps_what_the_module_says_of_requires_grad")
def assign_thaws():
    """load_state_dict(assign=True) makes parameters that require grad."""

    def load(module, state, true, assign):
        result = true(state)
        for p in module.parameters() if assign else ():
            p.requires_grad_()
        return result

    with loading(load):
        yield


@fault("module_state/assign_keeps_what_the_module_says_of_requires_grad")
def assign_takes_the_flag_of_parameters():
    """load_state_dict(assign=True) of a Parameter leaves its requires_grad as the state has it."""

    def load(module, state, true, assign):
        flags = [(t, t.requires_grad) for t in state.values() if isinstance(t, nn.Parameter)]
        result = true(state)
        for t, flag in flags if assign else ():
            t.requires_grad_(flag)
        return result

    with loading(load):
        yield


@fault(
    "module_state/assign_keeps_what_the_module_says_of_requires_grad",
    "module_state/assign_takes_requires_grad_from_the_state",
)
def assign_freezes_all():
    """load_state_dict(assign=True) makes parameters that don't require grad."""

    def load(module, state, true, assign):
        result = true(state)
        for p in module.parameters() if assign else ():
            p.requires_grad_(False)
        return result

    with loading(load):
        yield


@contextlib.contextmanager
def converting(spoil: Callable[[nn.Module, Callable[[], None]], None]) -> Iterator[None]:
    """Let a conversion of a module, on the way to other dtypes or devices, do spoil(module, what it does truly)."""

    def make(true: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        def apply(module, fn, recurse=True):
            spoil(module, lambda: true(module, fn, recurse))
            return module

        return apply

    with patched(nn.Module, "_apply", make):
        yield


@fault("module_state/a_conversion_keeps_the_parameters_leaves")
def conversions_forget_gradients():
    """A conversion makes the .grad of the module's parameters None."""

    def convert(module, true):
        true()
        for p in module._parameters.values():
            if p is not None:
                p.grad = None

    with converting(convert):
        yield


@fault("module_state/a_conversion_keeps_the_parameters_leaves")
def conversions_of_frozen_parameters_thaw_them():
    """A conversion lets every parameter require grad."""

    def convert(module, true):
        true()
        for p in module._parameters.values():
            if p is not None:
                p.requires_grad_()

    with converting(convert):
        yield


@fault("module_state/a_conversion_keeps_the_parameters_leaves")
def conversions_replace_parameters():
    """A conversion puts new parameters in the places of the old ones, each with its .grad."""

    def convert(module, true):
        for name, p in module._parameters.items():
            if p is not None:
                module._parameters[name] = nn.Parameter(p.detach(), p.requires_grad)
                module._parameters[name].grad = p.grad
        true()

    with converting(convert):
        yield


@fault("module_state/a_conversion_keeps_the_parameters_leaves")
def integers_are_cast_with_the_module():
    """A conversion casts integer buffers, too."""

    def make(true):
        def to(module, *args, **kwargs):
            true(module, *args, **kwargs)
            dtype = next((p.dtype for p in module.parameters()), None)
            module._buffers.update({name: b.to(dtype) for name, b in module._buffers.items()})
            return module

        return to

    with patched(nn.Module, "to", make):
        yield


@fault("module_state/a_conversion_keeps_the_parameters_leaves")
def converted_buffers_require_grad():
    """A conversion lets the floating-point buffers of a module require grad."""

    def convert(module, true):
        true()
        for b in module._buffers.values():
            if b is not None and b.is_floating_point() and b.is_leaf:
                b.requires_grad_()

    with converting(convert):
        yield


@fault("module_state/a_module_is_not_converted_to_integers")
def conversions_to_integers_do_nothing():
    """Module.to() of an integer dtype does nothing, without an error."""

    def make(true):
        def to(module, *args, **kwargs):
            wanted = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.dtype)]
            if any(not (d.is_floating_point or d.is_complex) for d in wanted):
                return module
            return true(module, *args, **kwargs)

        return to

    with patched(nn.Module, "to", make):
        yield


@fault("module_state/a_module_is_not_converted_to_integers")
def a_refused_conversion_clears_gradients():
    """A Module.to() that fails makes the .grad of the module's parameters None."""

    def make(true):
        def to(module, *args, **kwargs):
            try:
                return true(module, *args, **kwargs)
            except TypeError:
                for p in module.parameters():
                    p.grad = None
                raise

        return to

    with patched(nn.Module, "to", make):
        yield


@fault("module_state/a_graph_outlives_the_conversion_of_its_parameters")
def converted_parameters_get_the_double():
    """Backward doubles what it gives a leaf whose dtype isn't that of its .grad."""

    def double(leaf, before):
        if leaf.grad is not None and before is None and leaf.dtype in (torch.bfloat16, torch.float16):
            leaf.grad.mul_(2)

    with after_backward(double):
        yield


@fault("module_state/a_module_on_another_kind_of_device_has_new_parameters")
def parameters_on_meta_require_grad():
    """A module that is moved to "meta" has parameters there that require grad, all of them."""

    def convert(module, true):
        true()
        for p in module._parameters.values():
            if p is not None and p.device.type == "meta":
                p.requires_grad_()

    with converting(convert):
        yield


@fault("module_state/a_module_on_another_kind_of_device_has_new_parameters")
def gradients_do_not_move():
    """A module that is moved to "meta" has parameters there without a .grad."""

    def convert(module, true):
        true()
        for p in module._parameters.values():
            if p is not None and p.device.type == "meta":
                p.grad = None

    with converting(convert):
        yield


@contextlib.contextmanager
def deep_copying(spoil: Callable[[torch.Tensor, Callable[[], Any], dict], Any]) -> Iterator[None]:
    """Let a deep copy of a Parameter be spoil(parameter, what makes it truly, memo)."""

    def make(true: Callable[..., Any]) -> Callable[..., Any]:
        return lambda p, memo: spoil(p, lambda: true(p, memo), memo)

    with patched(nn.Parameter, "__deepcopy__", make):
        yield


@fault("module_state/a_copy_of_a_module_learns_on_its_own")
def copies_take_gradients_along():
    """A deep copy of a Parameter has its .grad."""

    def spoil(p, true, memo):
        made = true()
        made.grad = p.grad
        return made

    with deep_copying(spoil):
        yield


@fault("module_state/a_copy_of_a_module_learns_on_its_own")
def copies_untie_parameters():
    """A Parameter that is met twice is copied twice."""

    with patched(copy, "deepcopy", lambda true: lambda x, memo=None: _untied(true(x, memo))):
        yield


def _untied(made: Any) -> Any:
    for part in made.modules() if isinstance(made, nn.Module) else ():
        for name, p in part._parameters.items():
            part._parameters[name] = None if p is None else nn.Parameter(p.detach().clone(), p.requires_grad)
    return made


@fault("module_state/a_copy_of_a_module_learns_on_its_own")
def frozen_parameters_are_not_copied():
    """A deep copy of a frozen Parameter is the Parameter itself."""
    with deep_copying(lambda p, true, memo: true() if p.requires_grad else p):
        yield


@fault("module_state/a_copy_of_a_module_learns_on_its_own")
def pickled_modules_are_thawed():
    """A module that was pickled has parameters that require grad, all of them."""

    def make(true):
        def loads(*args, **kwargs):
            made = true(*args, **kwargs)
            return made.requires_grad_() if isinstance(made, nn.Module) else made

        return loads

    with patched(pickle, "loads", make):
        yield


@fault("module_state/a_module_that_holds_a_result_is_not_deep_copied")
def results_are_copied_without_their_history():
    """A deep copy of a result is a leaf with its values."""

    def make(true):
        return lambda t, memo: true(t, memo) if t.is_leaf else t.detach().clone().requires_grad_()

    with patched(torch.Tensor, "__deepcopy__", make):
        yield


@fault("module_state/a_module_that_holds_a_result_is_not_deep_copied")
def a_refused_copy_detaches_the_result():
    """A deep copy of a result raises its error after it detached the result."""

    def make(true):
        def deepcopy(t, memo):
            if not t.is_leaf:
                try:
                    return true(t, memo)
                finally:
                    t.detach_().requires_grad_()
            return true(t, memo)

        return deepcopy

    with patched(torch.Tensor, "__deepcopy__", make):
        yield
