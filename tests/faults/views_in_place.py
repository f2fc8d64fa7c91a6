"""Faults in how writes through views are recorded."""

import contextlib

import torch

from . import fault, patched, reading


def unrecorded(*names, when):
    """Faults' way to run these methods under no_grad if `when(tensor, *args)` says so."""

    def make(true):
        def method(x, *args, **kwargs):
            if torch.is_grad_enabled() and when(x, *args):
                with torch.no_grad():
                    return true(x, *args, **kwargs)
            return true(x, *args, **kwargs)

        return method

    stack = contextlib.ExitStack()
    for name in names:
        stack.enter_context(patched(torch.Tensor, name, make))
    return stack


@fault("views_in_place/a_write_to_a_view_is_recorded_for_the_base_and_all_views")
def a_view_is_multiplied_without_a_record():
    """mul_() of a view is not recorded."""
    with unrecorded("mul_", when=lambda x, *args: x._is_view()):
        yield


@fault("views_in_place/a_write_to_a_view_is_recorded_for_the_base_and_all_views")
def a_number_added_to_a_view_of_one_element_is_lost():
    """What add_() and copy_() put into a view of no dimensions gets no gradient."""

    def when(x, *args):
        return x._is_view() and x.dim() == 0 and args and isinstance(args[0], torch.Tensor)

    with unrecorded("add_", "copy_", when=when):
        yield


@fault("views_in_place/a_write_to_a_view_is_recorded_for_the_base_and_all_views")
def a_view_with_gaps_keeps_gradients_of_what_was_overwritten():
    """zero_() and fill_() of a view that isn't contiguous are not recorded."""
    with unrecorded("zero_", "fill_", when=lambda x, *args: not x.is_contiguous()):
        yield


@fault(
    "views_in_place/a_write_to_a_view_is_recorded_for_the_base_and_all_views",
    "views_in_place/a_constant_becomes_a_result_by_a_write_to_its_view",
)
def a_copy_into_a_view_counts_for_the_view_alone():
    """copy_() into a view passes the gradient by the view on, but not that by the base."""

    def make(true):
        def copy_(x, source):
            if x._is_view() and source.requires_grad and torch.is_grad_enabled():
                return true(x, (source * 2 - source.detach()))
            return true(x, source)

        return copy_

    with patched(torch.Tensor, "copy_", make):
        yield


@fault("views_in_place/a_write_to_a_view_is_recorded_for_the_base_and_all_views")
def a_row_added_to_several_gets_the_gradient_by_one():
    """What add_() adds to several rows of a view gets the gradient by the first of them."""

    def make(true):
        def add_(x, other, **options):
            if isinstance(other, torch.Tensor) and other.dim() and other.size(0) == 1 < x.size(0):
                rest = other.detach().expand(x.size(0) - 1, *other.shape[1:])
                other = torch.cat([other, rest])
            return true(x, other, **options)

        return add_

    with patched(torch.Tensor, "add_", make):
        yield


@fault("views_in_place/gradients_behind_a_write_to_a_view_can_be_differentiated")
def a_gradient_by_a_factor_counts_twice_when_differentiated():
    """The derivative of a gradient by what a view was multiplied by is twice what it is."""

    def make(true):
        def mul_(x, factor):
            if isinstance(factor, torch.Tensor) and factor.requires_grad:
                factor.register_hook(lambda gradient: gradient * 2 - gradient.detach())
            return true(x, factor)

        return mul_

    with patched(torch.Tensor, "mul_", make):
        yield


@fault("views_in_place/a_constant_becomes_a_result_by_a_write_to_its_view")
def a_view_of_one_number_stays_a_constant():
    """A view of no dimensions says that it doesn't require grad."""
    with reading("requires_grad", lambda x, flag: flag and not (x._is_view() and x.dim() == 0)):
        yield


@fault("views_in_place/what_was_made_before_a_write_keeps_its_history")
def a_write_to_the_base_is_not_recorded():
    """mul_() of a tensor that is no view is not recorded."""
    with unrecorded("mul_", when=lambda x, *args: not x._is_view()):
        yield


@fault("views_in_place/what_was_made_before_a_write_keeps_its_history")
def a_quiet_write_is_recorded():
    """mul_() under no_grad is recorded if it is done to a view of a result."""

    def make(true):
        def mul_(x, factor):
            if x._is_view() and not x._base.is_leaf:
                with torch.enable_grad():
                    return true(x, factor)
            return true(x, factor)

        return mul_

    with patched(torch.Tensor, "mul_", make):
        yield


@fault("views_in_place/a_hook_on_a_view_belongs_to_the_history_that_it_had")
def a_hook_on_a_view_that_was_written_is_lost():
    """A hook on a view is not called if its memory was written before it came."""

    def make(true):
        return lambda x, hook: true(x, (lambda gradient: None) if x._version and x._is_view() else hook)

    with patched(torch.Tensor, "register_hook", make):
        yield


@fault("views_in_place/a_hook_on_a_view_belongs_to_the_history_that_it_had")
def a_hook_on_a_view_ends_with_the_next_write():
    """A hook on a view is not called any more once its memory was written."""

    def make(true):
        def register_hook(x, hook):
            version = x._version
            return true(x, lambda gradient: hook(gradient) if x._version == version else None)

        return register_hook

    with patched(torch.Tensor, "register_hook", make):
        yield


@fault("views_in_place/a_view_and_its_base_retain_the_gradients_by_their_latest_elements")
def a_base_that_was_written_retains_the_gradient_by_what_it_was():
    """The .grad of a result that was written is three times what it is."""

    def spoil(x, grad):
        if grad is None or x.is_leaf or x._is_view() or not x._version:
            return grad
        return grad * 3

    with reading("grad", spoil):
        yield


@fault("views_in_place/a_view_and_its_base_retain_the_gradients_by_their_latest_elements")
def a_view_retains_nothing():
    """retain_grad() on a view does nothing."""
    with patched(torch.Tensor, "retain_grad", lambda true: lambda x: None if x._is_view() else true(x)):
        yield


@fault("views_in_place/an_assignment_by_an_index_is_a_write_in_place")
def what_is_assigned_by_a_list_gets_no_gradient():
    """A tensor that is assigned by a list of indices gets no gradient."""

    def make(true):
        def setitem(x, index, value):
            true(x, index, value.detach() + 0 * value.sum() if isinstance(index, list) else value)

        return setitem

    with patched(torch.Tensor, "__setitem__", make):
        yield


@fault("views_in_place/an_assignment_by_an_index_is_a_write_in_place")
def one_number_for_all_counts_once():
    """A tensor of no dimensions that is assigned to several elements gets the gradient as if it was assigned to one."""

    def make(true):
        def setitem(x, index, value):
            if value.dim() == 0 and value.requires_grad:
                value = value.clone()
                value.register_hook(lambda gradient: gradient.clamp(-2, 2))
            true(x, index, value)

        return setitem

    with patched(torch.Tensor, "__setitem__", make):
        yield


@fault("views_in_place/a_change_of_shape_in_place_is_recorded")
def squeezing_one_dimension_in_place_passes_no_gradient_on():
    """squeeze_() of a dimension makes the tensor pass no gradient on."""

    def make(true):
        def squeeze_(x, *dim):
            true(x, *dim)
            x.register_hook(lambda gradient: gradient * 0)
            return x

        return squeeze_

    with patched(torch.Tensor, "squeeze_", make):
        yield


@fault("views_in_place/a_change_of_shape_in_place_is_recorded")
def a_view_is_transposed_in_a_copy():
    """t_() of a view gives a transposed view, and leaves it as it was."""
    with patched(torch.Tensor, "t_", lambda true: lambda x: x.t() if x._is_view() else true(x)):
        yield


@fault("views_in_place/a_view_that_is_a_leaf_ceases_to_be_one_if_its_base_is_written_with_a_gradient")
def a_leaf_stays_a_leaf():
    """A view of no dimensions says that it is a leaf."""
    with reading("is_leaf", lambda x, leaf: leaf or (x._is_view() and x.dim() == 0)):
        yield


@fault("views_in_place/a_view_that_is_a_leaf_ceases_to_be_one_if_its_base_is_written_with_a_gradient")
def a_view_that_is_a_leaf_can_be_written():
    """mul_() of a view that is a leaf is carried out without a record."""
    with unrecorded("mul_", when=lambda x, *args: x._is_view() and x.requires_grad and x._grad_fn is None):
        yield


@fault("views_in_place/copy_takes_a_source_of_another_dtype_that_broadcasts")
def a_row_of_half_precision_is_copied_once():
    """copy_() of a row of float16 leaves all rows but the first as they were."""

    def make(true):
        def copy_(x, source):
            single = source.dtype == torch.float16 and x.dim() > 1 and x.size(0) > 1
            true(x[:1], source) if single else true(x, source)
            return x

        return copy_

    with patched(torch.Tensor, "copy_", make):
        yield
