"""Faults in what grad modes do, and in how they are left."""

import contextlib

import torch
from torch.autograd import forward_ad

from . import fault, patched, reading


def set_mode(enabled: bool) -> None:
    """Switch grad mode, whatever a fault did to the ways in which users switch it."""
    torch._C._set_grad_enabled(enabled)


@contextlib.contextmanager
def everything_recorded():
    """Grad mode is on in this block, whatever a fault did to enable_grad."""
    before = torch.is_grad_enabled()
    set_mode(True)
    try:
        yield
    finally:
        set_mode(before)


def leaving(owner, leave):
    """Let the mode `owner` be left by `leave(block, the arguments of __exit__)` in place of what it does."""
    return patched(owner, "__exit__", lambda _: lambda block, *raised: leave(block, *raised))


@fault(
    "grad_modes/operations_under_no_grad_are_not_recorded",
    "grad_modes/results_of_no_grad_are_constants_later",
    "mode_blocks/the_innermost_mode_decides",
    "mode_decorators/a_mode_decorates_functions",
    "mode_decorators/no_grad_decorates_without_parentheses",
    "mode_blocks/a_mode_can_be_entered_again",
)
def no_grad_does_nothing():
    """no_grad leaves grad mode on."""

    def enter(block):
        block.prev = torch.is_grad_enabled()

    with patched(torch.no_grad, "__enter__", lambda _: enter):
        yield


@fault("grad_modes/operations_under_no_grad_are_not_recorded")
def relu_is_recorded_under_no_grad():
    """relu records itself in every mode."""

    def make(true):
        def relu(tensor):
            with everything_recorded():
                return true(tensor)

        return relu

    with patched(torch.Tensor, "relu", make):
        yield


@fault("grad_modes/operations_under_no_grad_are_not_recorded")
def results_of_no_grad_are_no_leaves():
    """With grad mode off, is_leaf is false for every tensor that isn't a view and doesn't require grad."""

    def spoil(tensor, leaf):
        return leaf and (tensor.requires_grad or tensor._is_view() or tensor.dim() == 0)

    with reading("is_leaf", spoil):
        yield


@fault("grad_modes/a_graph_does_not_grow_under_no_grad")
def sums_with_results_are_recorded_under_no_grad():
    """Adding to the result of a recorded operation is recorded in every mode."""

    def make(true):
        def add(x, other):
            if x.grad_fn is None:
                return true(x, other)
            with everything_recorded():
                return true(x, other)

        return add

    with patched(torch.Tensor, "__add__", make):
        yield


@fault("grad_modes/a_graph_does_not_grow_under_no_grad")
def no_grad_forgets_the_graph_of_what_it_clones():
    """clone() under no_grad detaches the tensor that is cloned."""

    def make(true):
        def clone(x):
            if x.grad_fn is not None and not x._is_view() and not torch.is_grad_enabled():
                x.detach_()
            return true(x)

        return clone

    with patched(torch.Tensor, "clone", make):
        yield


@fault("graph/recording_does_not_change_what_is_computed")
def squares_are_one_too_large_under_no_grad():
    """With grad mode off, the product of a tensor with itself is 1 too large."""

    def make(true):
        def mul(tensor, other):
            result = true(tensor, other)
            return result + 1 if tensor is other and not torch.is_grad_enabled() else result

        return mul

    with patched(torch.Tensor, "__mul__", make):
        yield


@fault("graph/recording_does_not_change_what_is_computed")
def abs_is_skipped_under_no_grad():
    """With grad mode off, abs() gives back the values that it got."""

    def make(true):
        return lambda tensor: true(tensor) if torch.is_grad_enabled() else tensor.clone()

    with patched(torch.Tensor, "abs", make):
        yield


@fault("grad_modes/results_of_no_grad_are_constants_later", "grad_modes/operations_under_no_grad_are_not_recorded")
def sums_are_recorded_under_no_grad():
    """sum() records itself in every mode."""

    def make(true):
        def summed(tensor, *args, **kwargs):
            with everything_recorded():
                return true(tensor, *args, **kwargs)

        return summed

    with patched(torch.Tensor, "sum", make):
        yield


@fault("grad_modes/tensors_made_before_keep_their_flags_in_every_mode")
def requires_grad_is_false_where_grad_mode_is_off():
    """With grad mode off requires_grad reads as false."""
    with reading("requires_grad", lambda _, flag: flag and torch.is_grad_enabled()):
        yield


@fault("grad_modes/tensors_made_before_keep_their_flags_in_every_mode")
def history_is_hidden_where_grad_mode_is_off():
    """With grad mode off a tensor that isn't a leaf shows no grad_fn."""
    with reading("grad_fn", lambda _, node: node if torch.is_grad_enabled() else None):
        yield


@fault("grad_modes/leaves_can_be_made_in_every_mode", "leaves/a_parameter_is_a_leaf")
def parameters_made_under_no_grad_are_frozen():
    """With grad mode off nn.Parameter makes a tensor that doesn't require grad."""

    def make(true):
        def new(cls, data=None, requires_grad=True):
            return true(cls, data, requires_grad and torch.is_grad_enabled())

        return staticmethod(new)

    with patched(torch.nn.Parameter, "__new__", make):
        yield


@fault("grad_modes/leaves_can_be_made_in_every_mode")
def factories_heed_no_grad():
    """With grad mode off torch.full_like takes no notice of requires_grad=True."""

    def make(true):
        def full_like(*args, requires_grad=False, **kwargs):
            return true(*args, requires_grad=requires_grad and torch.is_grad_enabled(), **kwargs)

        return full_like

    with patched(torch, "full_like", make):
        yield


@fault("grad_modes/a_graph_recorded_inside_no_grad_is_like_any_other")
def entering_set_grad_enabled_always_turns_it_off():
    """set_grad_enabled(True) turns grad mode off when it is entered where the mode was off before."""
    with patched(torch.set_grad_enabled, "__enter__", lambda _: lambda block: set_mode(block.prev and block.mode)):
        yield


@fault("grad_modes/backward_works_in_every_mode")
def backward_is_lost_under_no_grad():
    """With grad mode off backward() does nothing."""

    def make(true):
        def backward(*args, **kwargs):
            if torch.is_grad_enabled():
                true(*args, **kwargs)

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("grad_modes/backward_works_in_every_mode")
def grad_gives_zeros_under_no_grad():
    """With grad mode off torch.autograd.grad gives zeros."""

    def make(true):
        def grad(*args, **kwargs):
            found = true(*args, **kwargs)
            if torch.is_grad_enabled():
                return found
            return tuple(None if g is None else torch.zeros_like(g) for g in found)

        return grad

    with patched(torch.autograd, "grad", make):
        yield


@fault("grad_modes/create_graph_decides_alone_whether_a_gradient_is_recorded")
def create_graph_is_ignored_under_no_grad():
    """With grad mode off torch.autograd.grad takes no notice of create_graph=True."""

    def make(true):
        def grad(*args, create_graph=False, **kwargs):
            return true(*args, create_graph=create_graph and torch.is_grad_enabled(), **kwargs)

        return grad

    with patched(torch.autograd, "grad", make):
        yield


@fault("grad_modes/create_graph_decides_alone_whether_a_gradient_is_recorded")
def create_graph_leaves_grad_mode_on():
    """After backward(create_graph=True) grad mode is on."""

    def make(true):
        def backward(tensors, grad_tensors=None, retain_graph=None, create_graph=False, **kwargs):
            true(tensors, grad_tensors, retain_graph, create_graph, **kwargs)
            if create_graph:
                set_mode(True)

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("grad_modes/a_tensor_that_is_given_back_keeps_its_history_in_every_mode")
def conversions_detach_where_nothing_is_recorded():
    """With grad mode off to() of a recorded tensor gives a detached one."""

    def make(true):
        def to(tensor, *args):
            quiet = tensor.requires_grad and not tensor.is_leaf and not torch.is_grad_enabled()
            return true(tensor.detach() if quiet else tensor, *args)

        return to

    with patched(torch.Tensor, "to", make):
        yield


@fault("grad_modes/a_tensor_that_is_given_back_keeps_its_history_in_every_mode")
def inference_mode_forgets_the_history_of_what_is_contiguous():
    """contiguous() in inference mode detaches a tensor, in place."""

    def make(true):
        def contiguous(tensor):
            if torch.is_inference_mode_enabled() and tensor.grad_fn is not None:
                with torch.inference_mode(False):
                    tensor.detach_()
            return true(tensor)

        return contiguous

    with patched(torch.Tensor, "contiguous", make):
        yield


@fault("grad_modes/out_is_refused_where_it_would_have_to_be_recorded")
def out_is_written_without_a_record():
    """torch.mul writes into out= in every mode, and records nothing."""

    def make(true):
        def mul(x, other, *, out=None):
            if out is None:
                return true(x, other)
            with torch.no_grad():
                return true(x, other, out=out)

        return mul

    with patched(torch, "mul", make):
        yield


@fault("grad_modes/out_is_refused_where_it_would_have_to_be_recorded")
def a_refused_out_is_written():
    """torch.clamp writes into an out= that requires grad before it raises its error."""

    def make(true):
        def clamp(x, low, high, *, out=None):
            try:
                return true(x, low, high, out=out)
            except RuntimeError:
                if out.requires_grad and not x.requires_grad:
                    out.data.copy_(x)
                raise

        return clamp

    with patched(torch, "clamp", make):
        yield


@fault("grad_modes/forward_mode_works_in_every_grad_mode")
def no_tangents_under_no_grad():
    """With grad mode off make_dual attaches no tangent."""

    def make(true):
        return lambda x, tangent: true(x, tangent if torch.is_grad_enabled() else torch.zeros_like(tangent))

    with patched(forward_ad, "make_dual", make):
        yield


@fault("grad_modes/forward_mode_works_in_every_grad_mode")
def squares_have_no_tangent_under_no_grad():
    """With grad mode off the product of a tensor with itself loses its tangent."""

    def make(true):
        def mul(x, other):
            quiet = x is other and not torch.is_grad_enabled()
            return true(forward_ad.unpack_dual(x).primal, other) if quiet else true(x, other)

        return mul

    with patched(torch.Tensor, "__mul__", make):
        yield


@fault("grad_modes/operations_under_no_grad_are_not_recorded", "grad_modes/a_graph_does_not_grow_under_no_grad")
def sums_have_a_history_in_inference_mode():
    """sum() in inference mode says that it has a grad_fn, if its input has one or is a leaf that requires grad."""

    def make(true):
        def summed(tensor, *args, **kwargs):
            if not torch.is_inference_mode_enabled():
                return true(tensor, *args, **kwargs)
            with torch.inference_mode(False):
                return true(tensor if not tensor.is_inference() else tensor.clone(), *args, **kwargs)

        return summed

    with patched(torch.Tensor, "sum", make):
        yield


@fault("grad_modes/tensors_made_before_keep_their_flags_in_every_mode")
def requires_grad_is_false_in_inference_mode():
    """In inference mode requires_grad of what isn't a leaf reads as false."""
    with reading("requires_grad", lambda t, flag: flag and (t.is_leaf or not torch.is_inference_mode_enabled())):
        yield


@fault("grad_modes/a_constant_written_under_no_grad_stays_a_constant")
def copies_under_no_grad_require_grad():
    """With grad mode off copy_() of a tensor that requires grad makes the target require grad."""

    def make(true):
        def copy_(tensor, source):
            result = true(tensor, source)
            if source.requires_grad and not torch.is_grad_enabled() and tensor.is_leaf:
                tensor.requires_grad_()
            return result

        return copy_

    with patched(torch.Tensor, "copy_", make):
        yield


@fault("grad_modes/a_constant_written_under_no_grad_stays_a_constant")
def sums_into_views_are_recorded_under_no_grad():
    """addcmul_() into a view is recorded in every mode."""

    def make(true):
        def addcmul_(tensor, *factors):
            if not tensor._is_view() or torch.is_inference_mode_enabled():
                return true(tensor, *factors)
            with everything_recorded():
                return true(tensor, *factors)

        return addcmul_

    with patched(torch.Tensor, "addcmul_", make):
        yield


@fault("grad_modes/a_graph_does_not_grow_under_no_grad")
def functions_are_recorded_under_no_grad():
    """A Function that a user defines is recorded in every mode."""

    def make(true):
        def apply(cls, *args):
            if torch.is_inference_mode_enabled():
                return true.__func__(cls, *args)
            with everything_recorded():
                return true.__func__(cls, *args)

        return classmethod(apply)

    with patched(torch.autograd.Function, "apply", make):
        yield
