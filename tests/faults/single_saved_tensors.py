"""Faults in hooks that are registered on a single saved tensor."""

import contextlib

import torch

from . import fault, patched
from .saved_tensor_hooks import hooks_through


@contextlib.contextmanager
def registering(register):
    """Let register_hooks be register(the true one, saved tensor, pack, unpack)."""
    with patched(torch._C._autograd.SavedTensor, "register_hooks", lambda true: lambda *args: register(true, *args)):
        yield


@fault("single_saved_tensors/register_hooks_concerns_one_saved_tensor")
def registered_hooks_pack_when_they_unpack():
    """register_hooks doesn't call pack; the first use does."""

    def register(true, saved, pack, unpack):
        true(saved, lambda t: t.detach(), lambda t: unpack(pack(t)))

    with registering(register):
        yield


@fault("single_saved_tensors/register_hooks_concerns_one_saved_tensor")
def registered_hooks_pack_twice():
    """register_hooks calls pack twice if the tensor has no dimensions."""

    def register(true, saved, pack, unpack):
        true(saved, lambda t: (pack(t) if not t.shape else None, pack(t))[1], unpack)

    with registering(register):
        yield


@fault("single_saved_tensors/backward_computes_with_what_single_hooks_return")
def registered_hooks_are_not_asked_by_backward():
    """Backward computes with the tensor that was saved, whatever the hooks registered on it return."""

    def register(true, saved, pack, unpack):
        true(saved, lambda t: (pack(t), t.detach()), lambda packed: (unpack(packed[0]), packed[1])[1])

    with registering(register):
        yield


@fault("single_saved_tensors/backward_computes_with_what_single_hooks_return")
def registered_hooks_get_the_tensor_packed():
    """What hooks that were registered pack is not what pack returned but the tensor."""
    with registering(lambda true, saved, pack, unpack: true(saved, lambda t: t.detach(), unpack)):
        yield


@contextlib.contextmanager
def not_refusing(telling):
    """Let register_hooks return where it has to raise an error that tells this."""

    def register(true, *args):
        try:
            true(*args)
        except RuntimeError as error:
            if telling not in str(error):
                raise

    with registering(register):
        yield


@fault("single_saved_tensors/register_hooks_refuses_tensors_that_have_hooks_or_are_freed")
def second_hooks_are_ignored():
    """register_hooks on a saved tensor that has hooks does nothing."""
    with not_refusing("already been set"):
        yield


@fault("single_saved_tensors/register_hooks_refuses_tensors_that_have_hooks_or_are_freed")
def hooks_on_a_freed_tensor_are_ignored():
    """register_hooks on a saved tensor that was freed does nothing."""
    with not_refusing("after it has been freed"):
        yield


@fault("single_saved_tensors/register_hooks_refuses_tensors_that_have_hooks_or_are_freed")
def refused_hooks_pack_nevertheless():
    """register_hooks calls pack before it looks whether the saved tensor may have hooks."""

    def register(true, saved, pack, unpack):
        try:
            true(saved, pack, unpack)
        except RuntimeError:
            pack(torch.zeros(()))
            raise

    with registering(register):
        yield


@fault("single_saved_tensors/register_hooks_refuses_what_was_not_saved")
def hooks_on_nothing_are_ignored():
    """register_hooks where no tensor was saved does nothing."""
    with not_refusing("None is forbidden"):
        yield


@fault("single_saved_tensors/a_context_packs_the_input_itself_and_register_hooks_a_detached_one")
def a_context_packs_views():
    """In a context, pack_hook gets a view of the tensor that is saved."""
    with hooks_through(lambda pack: lambda t: pack(torch.enable_grad()(t.view_as)(t))):
        yield


@fault("single_saved_tensors/a_context_packs_the_input_itself_and_register_hooks_a_detached_one")
def register_hooks_packs_a_leaf():
    """register_hooks gives pack a leaf that requires grad."""
    with registering(lambda true, saved, pack, unpack: true(saved, lambda t: pack(t.requires_grad_()), unpack)):
        yield
