"""Faults in what hooks for saved tensors may do, and in how long what they keep is kept."""

import contextlib
import copy

import torch

from . import fault, patched
from .saved_tensor_hooks import hooks_through
from .saved_tensor_hooks_scope import saving_on_cpu
from .single_saved_tensors import registering


@contextlib.contextmanager
def all_hooks_through(make_pack, make_unpack=lambda unpack: unpack):
    """Let contexts and register_hooks set make_pack(pack) and make_unpack(unpack) in place of the hooks given."""
    with (
        hooks_through(make_pack, make_unpack),
        registering(lambda true, saved, pack, unpack: true(saved, make_pack(pack), make_unpack(unpack))),
    ):
        yield


def in_mode(mode):
    """What makes of a hook one that runs in the grad mode."""
    return lambda hook: lambda given: mode(hook)(given)


@fault("saved_tensor_hooks_limits/pack_runs_without_recording_and_unpack_as_its_caller")
def pack_is_recorded():
    """pack_hook runs in grad mode."""
    with all_hooks_through(in_mode(torch.enable_grad())):
        yield


@fault("saved_tensor_hooks_limits/pack_runs_without_recording_and_unpack_as_its_caller")
def unpack_is_never_recorded():
    """unpack_hook runs without grad mode, in a backward that makes a graph, too."""
    with all_hooks_through(lambda pack: pack, in_mode(torch.no_grad())):
        yield


@fault("saved_tensor_hooks_limits/pack_must_not_change_its_argument")
def pack_gets_a_copy():
    """pack_hook gets a copy, which it can change."""
    with all_hooks_through(lambda pack: lambda t: pack(t.clone())):
        yield


@fault("saved_tensor_hooks_limits/pack_must_not_change_its_argument")
def registered_pack_may_change_its_argument():
    """A pack_hook that is registered on a single tensor can change it."""

    def register(true, saved, pack, unpack):
        def pack_uncounted(t):
            with torch.autograd._unsafe_preserve_version_counter(t):
                return pack(t)

        true(saved, pack_uncounted, unpack)

    with registering(register):
        yield


@fault("saved_tensor_hooks_limits/pack_must_not_change_its_argument")
def pack_may_change_results():
    """A pack_hook may change the result of an operation; only changes of inputs raise an error."""

    def make_pack(pack):
        def pack_uncounted(t):
            leaf = t.is_leaf
            with contextlib.nullcontext() if leaf else torch.autograd._unsafe_preserve_version_counter(t):
                return pack(t)

        return pack_uncounted

    with hooks_through(make_pack):
        yield


@fault("saved_tensor_hooks_limits/an_unpack_hook_that_changes_its_argument_is_not_noticed")
def unpack_gets_a_copy():
    """unpack_hook gets a copy of what was packed."""
    with all_hooks_through(lambda pack: pack, lambda unpack: lambda packed: unpack(copy.copy(packed).clone())):
        yield


def refuse_changed(unpack):
    """An unpack hook for (what was packed, the tensor, its version) that compares the versions."""

    def unpack_unchanged(packed):
        stored, t, version = packed
        if t._version != version:
            raise RuntimeError("one of the variables has been modified by an inplace operation")
        return unpack(stored)

    return unpack_unchanged


@fault("saved_tensor_hooks_limits/with_hooks_a_change_of_a_saved_tensor_is_not_noticed")
def versions_of_packed_tensors_are_compared():
    """A saved tensor with hooks that was changed raises an error when it is unpacked."""
    with all_hooks_through(lambda pack: lambda t: (pack(t), t.detach(), t._version), refuse_changed):
        yield


@fault("saved_tensor_hooks_limits/with_hooks_a_change_of_a_saved_tensor_is_not_noticed")
def registered_hooks_pack_copies():
    """Hooks that are registered on a single tensor get a copy of it."""
    with registering(lambda true, saved, pack, unpack: true(saved, lambda t: pack(t.clone()), unpack)):
        yield


def swallowed(hook):
    """The hook, which returns what it is given if it fails."""

    def wrapped(given):
        try:
            return hook(given)
        except Exception:
            return given.detach()

    return wrapped


def generalised(hook):
    """The hook, which raises a RuntimeError whatever it raises itself."""

    def wrapped(given):
        try:
            return hook(given)
        except Exception as error:
            raise RuntimeError("a hook failed") from error

    return wrapped


@fault(
    "saved_tensor_hooks_limits/an_error_in_a_hook_reaches_the_caller",
    "saved_tensor_hooks_limits/an_error_in_a_hook_comes_as_a_runtime_error",
)
def errors_in_hooks_are_swallowed():
    """If a hook fails, the tensor is stored, or used, as it is."""
    with all_hooks_through(swallowed, swallowed):
        yield


@fault("saved_tensor_hooks_limits/an_error_in_a_hook_reaches_the_caller")
def errors_in_unpack_lose_their_type():
    """If unpack_hook fails, a RuntimeError is raised."""
    with all_hooks_through(lambda pack: pack, generalised):
        yield


@fault("saved_tensor_hooks_limits/an_error_in_a_hook_reaches_the_caller")
def errors_in_registered_pack_are_swallowed():
    """If pack fails in register_hooks, no error is raised."""
    with registering(lambda true, saved, pack, unpack: true(saved, swallowed(pack), unpack)):
        yield


def or_zeros(unpack, instead):
    """The unpack hook, or zeros in place of what `instead` says of what it returns."""

    def wrapped(packed):
        t = unpack(packed)
        return torch.zeros_like(packed) if instead(t, packed) else t

    return wrapped


@fault("saved_tensor_hooks_limits/unpack_must_return_a_tensor")
def no_tensor_is_unpacked_as_zeros():
    """If unpack_hook returns no tensor, zeros are used."""
    with all_hooks_through(
        lambda pack: pack, lambda unpack: or_zeros(unpack, lambda t, packed: not isinstance(t, torch.Tensor))
    ):
        yield


@fault("saved_tensor_hooks_limits/unpack_must_return_a_tensor")
def unpack_that_returns_nothing_gives_back_what_was_packed():
    """If unpack_hook returns None, what was packed is used."""
    with all_hooks_through(
        lambda pack: pack, lambda unpack: lambda packed: packed if (t := unpack(packed)) is None else t
    ):
        yield


@fault("saved_tensor_hooks_limits/nobody_checks_what_unpack_returns")
def tensors_of_another_shape_are_unpacked_as_zeros():
    """If unpack_hook returns a tensor of another shape, zeros are used."""
    with all_hooks_through(
        lambda pack: pack, lambda unpack: or_zeros(unpack, lambda t, packed: t.shape != packed.shape)
    ):
        yield


KEPT = []


@contextlib.contextmanager
def keeping(hold):
    """Let hold(kept, pack, t) call pack and keep what it wants, until the fault is over."""
    try:
        with hooks_through(lambda pack: lambda t: hold(pack, t)):
            yield
    finally:
        KEPT.clear()


@fault("saved_tensor_hooks_limits/what_is_packed_lives_until_the_graph_is_freed")
def what_is_packed_is_kept():
    """What pack_hook returned is kept for good."""

    def hold(pack, t):
        KEPT.append(pack(t))
        return KEPT[-1]

    with keeping(hold):
        yield


@fault("saved_tensor_hooks_limits/what_is_packed_lives_until_the_graph_is_freed")
def a_copy_of_what_is_packed_is_kept():
    """The graph keeps a copy of what pack_hook returned."""
    with keeping(lambda pack, t: copy.copy(pack(t))):
        yield


@fault("saved_tensor_hooks_limits/what_is_packed_lives_until_the_graph_is_freed")
def hooks_are_kept():
    """The graph keeps the hooks when it is freed."""

    def hold(pack, t):
        KEPT.append(pack)
        return pack(t)

    with keeping(hold):
        yield


@fault("saved_tensor_hooks_limits/packing_a_detached_tensor_makes_no_reference_cycle")
def tensors_are_kept_beside_what_is_packed():
    """The graph keeps the tensor beside what pack_hook returned."""
    with hooks_through(lambda pack: lambda t: (pack(t), t), lambda unpack: lambda packed: unpack(packed[0])):
        yield


@fault("saved_tensor_hooks_limits/packing_a_detached_tensor_makes_no_reference_cycle")
def relu_keeps_its_result_beside_what_is_packed():
    """The node of relu() keeps the result beside what pack_hook returned."""

    def make(true):
        def relu(x):
            y = true(x)
            if y.grad_fn:
                y.grad_fn.metadata["result"] = y
            return y

        return relu

    with patched(torch.Tensor, "relu", make):
        yield


@fault("saved_tensor_hooks_limits/packing_a_result_as_it_is_keeps_the_graph_alive")
def what_pack_returns_is_detached():
    """If pack_hook returns its argument, a detached tensor is stored instead."""

    def make_pack(pack):
        def pack_detached(t):
            packed = pack(t)
            return packed.detach() if packed is t else packed

        return pack_detached

    with hooks_through(make_pack):
        yield


@fault("saved_tensor_hooks_limits/packing_a_result_as_it_is_keeps_the_graph_alive")
def save_on_cpu_copies_results():
    """save_on_cpu stores a copy of the result of an operation."""

    def detached(packed):
        return packed[0], packed[1].clone()

    def make_pack(pack):
        return lambda t: detached(packed) if isinstance(packed := pack(t), tuple) and len(packed) == 2 else packed

    with hooks_through(make_pack):
        yield


@fault("saved_tensor_hooks_limits/what_is_packed_lives_until_the_graph_is_freed")
def graphs_with_hooks_can_be_used_again():
    """A second backward through a graph that was freed does nothing."""

    def make(true):
        def backward(tensors, *args, **options):
            try:
                true(tensors, *args, **options)
            except RuntimeError as error:
                if "retain_graph=True" not in str(error):
                    raise

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("saved_tensor_hooks_limits/the_gradient_of_a_determinant_relies_on_strides")
def pinned_memory_keeps_strides():
    """What save_on_cpu puts into pinned memory comes back with the strides that it had."""
    with saving_on_cpu(lambda t, pinned: t):
        yield


@fault("saved_tensor_hooks_limits/the_gradient_of_a_determinant_relies_on_strides")
def unpacked_tensors_get_the_strides_that_were_packed():
    """What unpack_hook returns is laid out in memory like the tensor that was packed."""

    def make_unpack(unpack):
        return lambda packed: torch.empty_like(packed[1]).copy_(unpack(packed[0]))

    with hooks_through(lambda pack: lambda t: (pack(t), t.detach()), make_unpack):
        yield


@fault("saved_tensor_hooks_limits/rrelu_packs_its_random_numbers_before_they_are_drawn")
def rrelu_draws_before_it_packs():
    """rrelu() draws random numbers before it calls pack_hook."""

    def make(true):
        def rrelu(*args, **options):
            torch.rand(1)
            return true(*args, **options)

        return rrelu

    with patched(torch.nn.functional, "rrelu", make):
        yield


@fault("saved_tensor_hooks_limits/rrelu_packs_its_random_numbers_before_they_are_drawn")
def rrelu_packs_copies():
    """rrelu() calls pack_hook with copies of what it saves."""
    with hooks_through(lambda pack: lambda t: (pack(t.clone()), t.detach()), lambda unpack: lambda packed: packed[1]):
        yield
