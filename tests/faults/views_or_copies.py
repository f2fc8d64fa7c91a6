"""Faults in what is a view, a copy or the tensor itself."""

import torch

from . import fault, patched, reading
from .views import emptied


@fault("views_or_copies/reshape_and_flatten_give_a_view_exactly_if_they_can")
def a_reshaped_result_is_a_copy():
    """reshape() of a view copies."""
    with patched(
        torch.Tensor,
        "reshape",
        lambda true: lambda x, *shape: true(x, *shape).clone() if x.requires_grad and x._is_view() else true(x, *shape),
    ):
        yield


@fault("views_or_copies/reshape_and_flatten_give_a_view_exactly_if_they_can")
def a_flattened_copy_lists_columns():
    """flatten() of a matrix that lies in memory column by column gives a view of the memory as it is."""

    def make(true):
        def flatten(x, *dims):
            columns = x.dim() == 2 and x.stride() == (1, x.size(0)) and x.size(0) > 1 < x.size(1)
            return true(x.t(), *dims) if columns else true(x, *dims)

        return flatten

    with patched(torch.Tensor, "flatten", make):
        yield


@fault("views_or_copies/an_operation_with_nothing_to_do_gives_the_tensor_itself")
def contiguous_gives_a_view():
    """contiguous() of a contiguous leaf gives a view of it."""
    with patched(torch.Tensor, "contiguous", lambda true: lambda x: true(x)[...] if x.is_leaf else true(x)):
        yield


@fault("views_or_copies/an_operation_with_nothing_to_do_gives_the_tensor_itself")
def a_tensor_of_half_precision_is_always_cast():
    """type() copies a float16 tensor that has the dtype already."""
    with patched(
        torch.Tensor,
        "type",
        lambda true: lambda x, *dtype: true(x, *dtype).clone() if dtype == (torch.float16,) else true(x, *dtype),
    ):
        yield


@fault("views_or_copies/a_copy_has_memory_of_its_own_but_the_history_goes_on")
def a_clone_is_a_view():
    """clone() gives a view of a tensor that requires grad."""
    with patched(
        torch.Tensor,
        "clone",
        lambda true: lambda x, **options: x[...] if x.requires_grad else true(x, **options),
    ):
        yield


@fault("views_or_copies/a_copy_has_memory_of_its_own_but_the_history_goes_on")
def copy_is_ignored():
    """to() ignores copy=True if there is nothing to convert."""

    def make(true):
        return lambda x, *args, copy=False, **options: true(x, *args, **options)[...]

    with patched(torch.Tensor, "to", make):
        yield


@fault("views_or_copies/a_copy_has_memory_of_its_own_but_the_history_goes_on")
def a_copied_view_passes_no_gradient_on():
    """What torch.expand_copy() gives is cut off from the graph."""
    with patched(torch, "expand_copy", lambda true: lambda x, shape: true(x, shape) * 0 + true(x.detach(), shape)):
        yield


@fault("views_or_copies/what_is_cast_to_integers_is_cut_off")
def truth_values_require_grad():
    """A tensor of truth values says that it requires grad."""
    with reading("requires_grad", lambda x, flag: flag or x.dtype == torch.bool):
        yield


@fault("views_or_copies/basic_indexing_gives_views_and_advanced_indexing_copies")
def a_list_of_one_index_gives_a_view():
    """A list of a single number as an index gives a view of the row."""

    def make(true):
        def getitem(x, index):
            if isinstance(index, list) and len(index) == 1 and type(index[0]) is int:
                return true(true(x, index[0]), None)
            return true(x, index)

        return getitem

    with patched(torch.Tensor, "__getitem__", make):
        yield


@fault("views_or_copies/basic_indexing_gives_views_and_advanced_indexing_copies")
def a_row_that_is_picked_twice_counts_once():
    """Of a row that a list of indices picks again, the gradient doesn't count."""

    def repeats(index):
        return [number for number, row in enumerate(index) if row in index[:number]]

    def make(true):
        def getitem(x, index):
            result = true(x, index)
            rows = isinstance(index, list) and all(type(row) is int for row in index)
            if rows and repeats(index) and result.requires_grad:
                result.register_hook(lambda gradient: emptied(gradient, repeats(index)))
            return result

        return getitem

    with patched(torch.Tensor, "__getitem__", make):
        yield


@fault("views_or_copies/a_detached_tensor_shares_memory_but_is_no_view")
def a_detached_view_is_a_copy():
    """detach() copies a view."""
    with patched(torch.Tensor, "detach", lambda true: lambda x: true(x).clone() if x._is_view() else true(x)):
        yield


@fault("views_or_copies/a_detached_tensor_shares_memory_but_is_no_view")
def a_detached_tensor_is_a_view():
    """detach() gives a view of a detached tensor."""
    with patched(torch.Tensor, "detach", lambda true: lambda x: torch.ops.aten.alias(true(x))):
        yield


@fault("views_or_copies/changes_of_size_and_strides_of_a_detached_tensor_stay_with_it")
def transposing_a_detached_tensor_transposes_the_original():
    """t_() of a detached tensor is done to what it was detached of as well."""

    def detach(true):
        def detach(x):
            y = true(x)
            y._original = x
            return y

        return detach

    def t_(true):
        def t_(x):
            if hasattr(x, "_original"):
                x._original.data = x._original.data.t()
            return true(x)

        return t_

    with patched(torch.Tensor, "detach", detach), patched(torch.Tensor, "t_", t_):
        yield


@fault("views_or_copies/a_tensor_that_requires_grad_can_not_be_resized")
def a_resize_of_a_result_is_ignored():
    """resize_() of a result that requires grad does nothing."""
    with patched(
        torch.Tensor,
        "resize_",
        lambda true: lambda x, *size: x if x.requires_grad and not x.is_leaf else true(x, *size),
    ):
        yield


@fault("views_or_copies/detaching_drops_the_tangent_of_forward_mode")
def a_detached_tensor_keeps_its_tangent():
    """detach() of a tensor that doesn't require grad gives a view of it."""
    with patched(torch.Tensor, "detach", lambda true: lambda x: true(x) if x.requires_grad else x[...]):
        yield


@fault("views_or_copies/detaching_drops_the_tangent_of_forward_mode")
def detach_in_place_keeps_the_tangent():
    """detach_() of a tensor that doesn't require grad does nothing."""
    with patched(torch.Tensor, "detach_", lambda true: lambda x: true(x) if x.requires_grad else x):
        yield


@fault("views_or_copies/the_scatter_variants_put_a_source_into_a_copy")
def a_source_on_a_second_diagonal_gets_no_gradient():
    """The source that diagonal_scatter() puts beside the main diagonal gets zeros."""

    def make(true):
        return lambda x, s, offset=0, *dims: true(x, s * 0 + s.detach() if offset else s, offset, *dims)

    with patched(torch, "diagonal_scatter", make):
        yield


@fault("views_or_copies/the_scatter_variants_put_a_source_into_a_copy")
def select_scatter_writes_the_input():
    """select_scatter() writes into its input."""

    def make(true):
        def select_scatter(x, s, dim, index):
            x.data.select(dim, index).copy_(s)
            return true(x, s, dim, index)

        return select_scatter

    with patched(torch.Tensor, "select_scatter", make):
        yield


@fault("views_or_copies/slice_scatter_and_slice_copy_take_the_whole_dimension_by_default")
def slice_copy_leaves_the_last_row_out():
    """slice_copy() without an end ends before the last row, if there are several."""
    with patched(
        torch,
        "slice_copy",
        lambda true: lambda x, dim=0, start=None, end=None, step=1: true(x, dim, start, end or max(x.size(0) - 1, 1)),
    ):
        yield


@fault("views_or_copies/as_strided_scatter_gives_its_input_the_wrong_gradients")
def as_strided_scatter_gives_the_right_gradients():
    """as_strided_scatter() gives its input the gradients by what was kept."""

    def as_strided_scatter(x, source, size, stride, offset):
        y = x.clone()
        y.as_strided(size, stride, offset).copy_(source)
        return y

    with patched(torch, "as_strided_scatter", lambda true: as_strided_scatter):
        yield


@fault("views_or_copies/as_strided_shares_the_gradient_among_elements_in_one_place")
def as_strided_gives_the_gradient_to_the_first_element():
    """as_strided() of rows in one place passes the gradient on to the first of them."""
    with patched(
        torch.Tensor, "as_strided", lambda true: lambda x, *args: x[0] if x.stride(0) == 0 else true(x, *args)
    ):
        yield


@fault("views_or_copies/narrow_copy_is_recorded")
def narrow_copy_is_narrow():
    """narrow_copy() gives a view."""
    with patched(torch.Tensor, "narrow_copy", lambda true: lambda x, *args: x.narrow(*args)):
        yield


@fault("views_or_copies/narrow_copy_has_no_derivative")
def an_older_narrow_copy_is_cut_off():
    """narrow_copy() of a tensor that requires grad is cut off from the graph."""
    with patched(torch.Tensor, "narrow_copy", lambda true: lambda x, *args: true(x.detach(), *args)):
        yield
