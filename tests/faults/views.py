"""Faults in views, and in the gradients that go through them."""

import contextlib

import torch

from . import fault, patched, reading


@contextlib.contextmanager
def gradient_through(name, spoil, concerned=lambda tensor, *args, **kwargs: True):
    """Let the gradient by what the method gives be spoil(gradient), if the arguments are concerned."""

    def make(true):
        def method(tensor, *args, **kwargs):
            result = true(tensor, *args, **kwargs)
            if result.requires_grad and torch.is_grad_enabled() and concerned(tensor, *args, **kwargs):
                result.register_hook(spoil)
            return result

        return method

    with patched(torch.Tensor, name, make):
        yield


def emptied(gradient, rows):
    """The gradient with zeros in these rows."""
    gradient = gradient.clone()
    gradient[rows] = 0
    return gradient


@fault("views/a_view_has_the_elements_that_it_shows")
def a_diagonal_below_is_that_above():
    """diagonal() forgets the sign of its offset."""
    with patched(torch.Tensor, "diagonal", lambda true: lambda x, offset=0, *dims: true(x, abs(offset), *dims)):
        yield


@fault("views/a_view_has_the_elements_that_it_shows")
def a_dimension_that_is_moved_changes_places():
    """movedim() exchanges two dimensions; of three it makes a difference."""

    def make(true):
        def movedim(x, source, destination):
            single = isinstance(source, int)
            return x.transpose(source, destination) if single else true(x, source, destination)

        return movedim

    with patched(torch.Tensor, "movedim", make):
        yield


@fault("views/each_element_of_a_view_lies_where_it_lies_in_the_base")
def a_transposed_matrix_is_a_copy():
    """t() copies its operand."""
    with patched(torch.Tensor, "t", lambda true: lambda x: true(x).clone(memory_format=torch.contiguous_format)):
        yield


@fault("views/each_element_of_a_view_lies_where_it_lies_in_the_base")
def what_begins_late_is_not_contiguous():
    """is_contiguous() is False for a tensor that doesn't begin where its storage does."""

    def make(true):
        return lambda x, *args, **kwargs: true(x, *args, **kwargs) and not (x._is_view() and x.storage_offset())

    with patched(torch.Tensor, "is_contiguous", make):
        yield


@fault("views/a_write_to_the_base_shows_in_its_views", "views/the_base_of_a_view_is_the_tensor_that_is_no_view_itself")
def squeezing_nothing_copies():
    """squeeze() copies a tensor that has no dimension of size 1."""
    with patched(
        torch.Tensor, "squeeze", lambda true: lambda x, *dim: true(x, *dim) if 1 in x.shape else true(x, *dim).clone()
    ):
        yield


@fault("views/a_write_to_the_base_shows_in_its_views")
def windows_that_overlap_are_copies():
    """unfold() copies if its windows overlap."""

    def make(true):
        def unfold(x, dim, size, step):
            result = true(x, dim, size, step)
            return result.clone() if size > step else result

        return unfold

    with patched(torch.Tensor, "unfold", make):
        yield


@fault("views/a_write_to_a_view_shows_in_the_base_at_what_the_view_shows")
def a_number_behind_others_is_not_filled():
    """fill_() does nothing to a view of no dimensions that begins behind the first element."""
    with patched(
        torch.Tensor,
        "fill_",
        lambda true: lambda x, number: x if x.dim() == 0 and x.storage_offset() else true(x, number),
    ):
        yield


@fault("views/a_write_to_a_view_shows_in_the_base_at_what_the_view_shows")
def a_filled_column_fills_its_neighbours():
    """fill_() of a view with gaps fills the gaps, too."""

    def make(true):
        def fill_(x, number):
            if x.dim() == 1 and x.numel() > 1 and x.stride(0) > 1:
                true(x.as_strided(((x.numel() - 1) * x.stride(0) + 1,), (1,)), number)
            return true(x, number)

        return fill_

    with patched(torch.Tensor, "fill_", make):
        yield


@fault("views/the_base_of_a_view_is_the_tensor_that_is_no_view_itself")
def the_base_is_none_without_grad():
    """_base is None for a view of a tensor that doesn't require grad."""
    with reading("_base", lambda x, base: base if x.requires_grad else None):
        yield


@fault("views/a_view_keeps_its_base_alive", "views/the_base_of_a_view_is_the_tensor_that_is_no_view_itself")
def the_base_is_another_tensor():
    """_base gives a new tensor in the memory of the base."""
    with reading("_base", lambda x, base: None if base is None else base.detach()):
        yield


@fault("views/a_view_keeps_its_base_alive")
def a_tensor_keeps_its_views():
    """A tensor keeps the latest view that an index gave of it."""

    def make(true):
        def getitem(x, index):
            x._latest_view = view = true(x, index)
            return view

        return getitem

    with patched(torch.Tensor, "__getitem__", make):
        yield


@fault("views/the_gradient_of_a_view_goes_to_the_elements_that_it_shows")
def the_second_window_passes_no_gradient_on():
    """Of windows that overlap only the first one passes a gradient on."""
    with gradient_through(
        "unfold", lambda gradient: emptied(gradient, slice(1, None)), lambda x, dim, size, step: size > step
    ):
        yield


@fault("views/the_gradient_of_a_view_goes_to_the_elements_that_it_shows")
def a_second_diagonal_passes_no_gradient_on():
    """Diagonals beside the main one pass no gradient on."""
    with gradient_through("diagonal", lambda gradient: gradient * 0, lambda x, offset=0, *dims: offset != 0):
        yield


@fault("views/gradients_through_views_can_be_differentiated")
def a_gradient_through_permute_is_a_constant():
    """Gradients through permute() can't be differentiated."""
    with gradient_through("permute", lambda gradient: gradient.detach() * 2 - gradient):
        yield


@fault("views/gradients_through_views_can_be_differentiated")
def a_gradient_through_select_counts_twice_when_differentiated():
    """The derivative of a gradient through select() along the last dimension is twice what it is."""
    with gradient_through("select", lambda gradient: gradient * 2 - gradient.detach(), lambda x, dim, index: dim == -1):
        yield


@fault("views/each_of_several_views_passes_its_own_gradient_on")
def the_last_of_several_passes_no_gradient_on():
    """The last of the tensors that unbind() gives passes no gradient on, if there are three or more."""

    def make(true):
        def unbind(x, dim=0):
            parts = true(x, dim)
            if len(parts) > 2 and parts[-1].requires_grad:
                parts[-1].register_hook(lambda gradient: None if gradient is None else gradient * 0)
            return parts

        return unbind

    with patched(torch.Tensor, "unbind", make):
        yield


@fault("views/each_of_several_views_passes_its_own_gradient_on")
def chunks_are_copies():
    """chunk() copies."""
    with patched(torch.Tensor, "chunk", lambda true: lambda x, *args: tuple(part.clone() for part in true(x, *args))):
        yield


@fault("views/each_of_several_views_passes_its_own_gradient_on")
def tensor_split_makes_its_last_sections_larger():
    """tensor_split() into sections gives what is left over to the last ones."""

    def make(true):
        def tensor_split(x, where, dim=0):
            if not isinstance(where, int):
                return true(x, where, dim)
            count = x.size(dim)
            return true(x, [count * number // where for number in range(1, where)], dim)

        return tensor_split

    with patched(torch.Tensor, "tensor_split", make):
        yield


@fault("views/a_hook_on_one_of_several_views_is_called_without_a_gradient")
def hooks_wait_for_a_gradient():
    """A hook is not called with None."""

    def make(true):
        return lambda x, hook: true(x, lambda gradient: None if gradient is None else hook(gradient))

    with patched(torch.Tensor, "register_hook", make):
        yield


@fault("views/a_view_taken_before_its_base_required_grad_passes_nothing_on")
def an_early_view_is_a_constant():
    """A view that has no grad_fn says that it doesn't require grad."""
    with reading("requires_grad", lambda x, flag: flag and not (x._is_view() and x._grad_fn is None)):
        yield


@fault("views/a_view_of_a_constant_can_be_made_a_leaf_of_its_own")
def a_view_that_requires_grad_takes_its_base_along():
    """requires_grad_() on a view sets the flag of its base."""

    def make(true):
        def requires_grad_(x, flag=True):
            if x._is_view() and not x.requires_grad:
                true(x._base, flag)
            return true(x, flag)

        return requires_grad_

    with patched(torch.Tensor, "requires_grad_", make):
        yield


@fault("views/what_can_not_be_shown_is_an_error")
def a_view_falls_back_to_a_copy():
    """view() copies where strides don't allow a view."""

    def make(true):
        def view(x, *shape):
            try:
                return true(x, *shape)
            except RuntimeError as error:
                if "reshape" not in str(error):
                    raise
                return x.reshape(*shape)

        return view

    with patched(torch.Tensor, "view", make):
        yield


@fault("views/what_can_not_be_shown_is_an_error")
def narrow_takes_what_is_there():
    """narrow() gives fewer elements where there aren't as many as asked for."""
    with patched(
        torch.Tensor,
        "narrow",
        lambda true: lambda x, dim, start, length: true(x, dim, start, min(length, x.size(dim) - start)),
    ):
        yield


@fault("views/what_can_not_be_shown_is_an_error")
def an_error_of_split_changes_its_operand():
    """split() with sizes that don't add up sets the operand to zero before it raises the error."""

    def make(true):
        def split(x, sizes, dim=0):
            try:
                return true(x, sizes, dim)
            except RuntimeError:
                x.data.zero_()
                raise

        return split

    with patched(torch.Tensor, "split", make):
        yield


@fault("views/an_expanded_tensor_needs_no_memory_and_its_gradients_are_summed")
def an_expanded_tensor_is_a_copy():
    """expand() copies."""
    with patched(torch.Tensor, "expand", lambda true: lambda x, *shape: true(x, *shape).clone()):
        yield


@fault("views/an_expanded_tensor_needs_no_memory_and_its_gradients_are_summed")
def the_last_repetition_passes_no_gradient_on():
    """Of an expanded tensor of three dimensions the last repetition passes no gradient on."""
    with contextlib.ExitStack() as stack:
        for name in ("expand", "expand_as", "broadcast_to"):
            stack.enter_context(
                gradient_through(name, lambda gradient: emptied(gradient, -1) if gradient.dim() == 3 else gradient)
            )
        yield


@fault("views/the_gradient_by_a_view_is_that_of_what_was_computed_from_it")
def a_view_that_is_taken_again_is_the_same():
    """x[...] gives the same tensor each time."""

    def make(true):
        def getitem(x, index):
            if index is not ... or not x.requires_grad:
                return true(x, index)
            if not hasattr(x, "_first_view"):
                x._first_view = true(x, index)
            return x._first_view

        return getitem

    with patched(torch.Tensor, "__getitem__", make):
        yield


@fault("views/the_gradient_by_a_view_is_that_of_what_was_computed_from_it")
def a_retained_gradient_of_a_view_is_that_of_all():
    """A view retains the gradient by the base at the elements that it shows, if it has as many."""

    def spoil(x, grad):
        if grad is None or not x.retains_grad or not x._is_view():
            return grad
        return grad + 7 if x.numel() == x._base.numel() else grad

    with reading("grad", spoil):
        yield
