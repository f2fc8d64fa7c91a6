"""Faults in the hooks that pack and unpack saved tensors."""

import contextlib

import torch
from torch.autograd.graph import saved_tensors_hooks

from . import fault, patched
from .saved_tensors import reading_saved


@contextlib.contextmanager
def hooks_through(make_pack, make_unpack=lambda unpack: unpack):
    """Let contexts set make_pack(pack) and make_unpack(unpack) in place of the hooks that they are given."""

    def make(true):
        def enter(self):
            pack, unpack = make_pack(self.pack_hook), make_unpack(self.unpack_hook)
            torch._C._autograd._push_saved_tensors_default_hooks(pack, unpack)

        return enter

    with patched(saved_tensors_hooks, "__enter__", make):
        yield


@fault("saved_tensor_hooks/hooks_that_give_back_what_was_saved_change_no_gradient")
def unpacked_tensors_are_read_row_by_row():
    """Backward reads the memory of an unpacked tensor as if it were contiguous."""

    def make_unpack(unpack):
        def unpack_contiguous(packed):
            t = unpack(packed)
            if t.is_contiguous() or not t.numel() or 0 in t.stride():
                return t
            return t.as_strided(t.shape, torch.empty(t.shape).stride())

        return unpack_contiguous

    with hooks_through(lambda pack: pack, make_unpack):
        yield


@fault("saved_tensor_hooks/hooks_that_give_back_what_was_saved_change_no_gradient")
def indexes_are_packed_as_zero():
    """Of indexes that are saved, pack gets zeros."""
    with hooks_through(lambda pack: lambda t: pack(torch.zeros_like(t) if t.dtype == torch.int64 else t)):
        yield


@fault("saved_tensor_hooks/hooks_that_give_back_what_was_saved_change_no_gradient")
def views_are_packed_by_their_first_row():
    """Of a view that is saved, every row is packed as the first one."""

    def make_pack(pack):
        def pack_first_row(t):
            rows = t._is_view() and t.is_floating_point() and t.dim() and len(t) > 1
            return pack(t.detach()[:1].expand(t.shape) if rows else t)

        return pack_first_row

    with hooks_through(make_pack):
        yield


@fault("saved_tensor_hooks/pack_is_called_once_for_each_tensor_that_is_saved")
def pack_is_called_twice():
    """pack_hook is called twice for a tensor without dimensions."""
    with hooks_through(lambda pack: lambda t: (pack(t), pack(t))[0] if not t.shape else pack(t)):
        yield


@fault("saved_tensor_hooks/pack_is_called_once_for_each_tensor_that_is_saved")
def pack_gets_detached_tensors():
    """pack_hook gets a result without its history."""
    with hooks_through(lambda pack: lambda t: pack(t.detach() if t.grad_fn else t)):
        yield


@fault("saved_tensor_hooks/pack_is_called_once_for_each_tensor_that_is_saved")
def constants_are_not_packed():
    """A saved tensor that doesn't require grad is stored as it is."""
    with hooks_through(
        lambda pack: lambda t: (pack(t), True) if t.requires_grad else (t.detach(), False),
        lambda unpack: lambda packed: unpack(packed[0]) if packed[1] else packed[0],
    ):
        yield


@fault("saved_tensor_hooks/pack_is_called_once_for_each_tensor_that_is_saved")
def what_is_unpacked_is_packed_again():
    """A backward calls pack_hook again with what unpack_hook returned."""

    def make(true):
        def enter(self):
            def unpack(packed):
                t = self.unpack_hook(packed)
                self.pack_hook(t)
                return t

            torch._C._autograd._push_saved_tensors_default_hooks(self.pack_hook, unpack)

        return enter

    with patched(saved_tensors_hooks, "__enter__", make):
        yield


@fault("saved_tensor_hooks/unpack_is_called_whenever_a_saved_tensor_is_used")
def unpacked_tensors_are_kept():
    """unpack_hook is called at the first use, and what it returned is used ever after."""

    def make_unpack(unpack):
        def unpack_once(holder):
            if len(holder) == 1:
                holder.append(unpack(holder[0]))
            return holder[1]

        return unpack_once

    with hooks_through(lambda pack: lambda t: [pack(t)], make_unpack):
        yield


@fault("saved_tensor_hooks/unpack_is_called_whenever_a_saved_tensor_is_used")
def tensors_are_unpacked_at_once():
    """unpack_hook is called as soon as the tensor is packed."""

    def make(true):
        def enter(self):
            torch._C._autograd._push_saved_tensors_default_hooks(
                lambda t: self.unpack_hook(self.pack_hook(t)), lambda packed: packed
            )

        return enter

    with patched(saved_tensors_hooks, "__enter__", make):
        yield


@fault("saved_tensor_hooks/unpack_is_called_whenever_a_saved_tensor_is_used")
def reading_a_saved_result_unpacks_nothing():
    """Reading a saved result gives the result without calling unpack_hook."""
    with reading_saved(lambda tensor, name, read: tensor[...] if name == "_saved_result" else read()):
        yield


@fault("saved_tensor_hooks/backward_computes_with_what_unpack_returns")
def backward_computes_with_what_was_saved():
    """Both hooks are called, but backward computes with the tensor that was saved."""
    with hooks_through(
        lambda pack: lambda t: (pack(t), t.detach()), lambda unpack: lambda packed: (unpack(packed[0]), packed[1])[1]
    ):
        yield


@fault("saved_tensor_hooks/backward_computes_with_what_unpack_returns")
def masks_come_from_the_result():
    """Of the saved result of relu(), backward uses the tensor, not what unpack_hook returns."""

    def make(true):
        def relu(x):
            with saved_tensors_hooks(lambda t: t.detach(), lambda packed: packed):
                return true(x)

        return relu

    with patched(torch.Tensor, "relu", make):
        yield


@fault("saved_tensor_hooks/backward_computes_with_what_unpack_returns")
def constants_are_packed_in_vain():
    """Of a saved constant, backward uses the tensor, not what unpack_hook returns."""
    with hooks_through(
        lambda pack: lambda t: (pack(t), None if t.requires_grad else t.detach()),
        lambda unpack: lambda packed: unpack(packed[0]) if packed[1] is None else packed[1],
    ):
        yield


@fault("saved_tensor_hooks/pack_can_return_any_object")
def falsy_objects_are_packed_as_none():
    """If pack_hook returns something that is false, unpack_hook gets None."""
    with hooks_through(lambda pack: lambda t: [pack(t)], lambda unpack: lambda packed: unpack(truthy(packed[0]))):
        yield


def truthy(packed):
    """The object, or None if it is false; a tensor as it is."""
    return packed if isinstance(packed, torch.Tensor) else packed or None


@fault("saved_tensor_hooks/pack_can_return_any_object")
def packed_tensors_are_detached():
    """If pack_hook returns a tensor, unpack_hook gets another one with its numbers."""
    with hooks_through(
        lambda pack: pack,
        lambda unpack: lambda packed: unpack(packed.detach() if isinstance(packed, torch.Tensor) else packed),
    ):
        yield


@fault("saved_tensor_hooks/pack_can_return_any_object")
def packed_lists_are_copied():
    """If pack_hook returns a list, unpack_hook gets a copy of it."""
    with hooks_through(
        lambda pack: pack,
        lambda unpack: lambda packed: unpack(list(packed) if isinstance(packed, list) else packed),
    ):
        yield


@fault("saved_tensor_hooks/derivatives_of_any_order_go_through_hooks")
def what_a_backward_saves_is_not_packed():
    """What grad() with create_graph saves is stored as it is, in a context of hooks, too."""

    def make(true):
        def grad(*args, **options):
            torch._C._autograd._push_saved_tensors_default_hooks(lambda t: t.detach(), lambda packed: packed)
            try:
                return true(*args, **options)
            finally:
                torch._C._autograd._pop_saved_tensors_default_hooks()

        return grad

    with patched(torch.autograd, "grad", make):
        yield


@fault("saved_tensor_hooks/derivatives_of_any_order_go_through_hooks")
def unpacked_tensors_lose_their_sign_in_a_recorded_backward():
    """In a backward that makes a graph, saved tensors come out of unpack_hook without their sign."""
    with hooks_through(
        lambda pack: pack,
        lambda unpack: lambda packed: unpack(packed).abs() if torch.is_grad_enabled() else unpack(packed),
    ):
        yield


@fault("saved_tensor_hooks/what_was_unpacked_has_the_history_of_what_was_saved")
def unpacked_constants_require_grad():
    """A saved constant that requires grad after unpack_hook does so when it is read."""

    def spoil(tensor, name, read):
        saved = read()
        return saved if saved is None or saved.requires_grad else saved.detach().requires_grad_()

    with reading_saved(spoil):
        yield


@fault("saved_tensor_hooks/hooks_make_new_objects_of_a_saved_input")
def what_was_unpacked_is_read_as_a_copy():
    """A saved tensor that went through hooks is read as a copy."""
    with reading_saved(lambda tensor, name, read: read().clone()):
        yield


@fault("saved_tensor_hooks/hooks_make_new_objects_of_a_saved_input")
def copies_are_unpacked_into_the_memory_of_the_input():
    """Whatever unpack_hook returns, the tensor that was saved is used."""
    with hooks_through(lambda pack: lambda t: (pack(t), t)[1], lambda unpack: lambda packed: packed):
        yield
