"""Faults in views of another dtype than their base."""

import torch

from . import fault, patched, reading


@fault("views_of_other_types/parts_and_conjugates_of_complex_tensors_are_views")
def the_gradient_by_an_imaginary_part_has_the_wrong_sign():
    """The gradient by what imag gives goes to the imaginary part with the opposite sign."""

    def spoil(z, part):
        if part.requires_grad:
            part.register_hook(lambda gradient: -gradient)
        return part

    with reading("imag", spoil):
        yield


@fault("views_of_other_types/parts_and_conjugates_of_complex_tensors_are_views")
def the_adjoint_is_a_copy():
    """adjoint() gives a copy."""
    with patched(torch.Tensor, "adjoint", lambda true: lambda z: true(z).resolve_conj().clone()):
        yield


@fault("views_of_other_types/parts_and_conjugates_of_complex_tensors_are_views")
def a_conjugate_of_a_conjugate_is_conjugated():
    """conj() of a tensor that has the conjugate bit gives the tensor itself."""
    with patched(torch.Tensor, "conj", lambda true: lambda z: z[...] if z.is_conj() else true(z)):
        yield


@fault("views_of_other_types/a_view_of_another_dtype_shares_the_bytes_but_no_history")
def a_view_of_the_same_dtype_is_recorded():
    """view() to the dtype that the tensor has is recorded as a view of all of it."""
    with patched(
        torch.Tensor, "view", lambda true: lambda x, *new: true(x, x.shape) if new == (x.dtype,) else true(x, *new)
    ):
        yield


@fault("views_of_other_types/a_view_of_another_dtype_shares_the_bytes_but_no_history")
def bytes_are_copied():
    """view() to a dtype of another size copies."""

    def make(true):
        def view(x, *new):
            result = true(x, *new)
            return result.clone() if result.element_size() < x.element_size() else result

        return view

    with patched(torch.Tensor, "view", make):
        yield


@fault("views_of_other_types/a_write_to_parts_of_complex_numbers_is_recorded")
def a_real_part_is_a_copy():
    """What real gives of a complex result is a copy."""
    with reading("real", lambda z, part: part.clone() if z.requires_grad else part):
        yield


@fault("views_of_other_types/a_write_to_parts_of_complex_numbers_is_recorded")
def what_is_copied_into_a_conjugate_gets_a_conjugate_gradient():
    """What copy_() puts into a part of a conjugate gets the gradient with the opposite sign."""

    def make(true):
        def copy_(x, source):
            if x.is_neg() and source.requires_grad:
                return true(x, 2 * source.detach() - source)
            return true(x, source)

        return copy_

    with patched(torch.Tensor, "copy_", make):
        yield


@fault("views_of_other_types/a_real_number_assigned_to_a_slice_of_complex_ones_has_no_gradient")
def a_real_number_is_cast_when_it_is_assigned():
    """A real tensor that is assigned to elements of a complex one is cast first."""
    with patched(torch.Tensor, "__setitem__", lambda true: lambda x, index, value: true(x, index, value.to(x.dtype))):
        yield


@fault("views_of_other_types/the_values_of_a_sparse_tensor_are_a_view_of_it")
def the_values_of_a_sparse_tensor_are_copied():
    """values() gives a copy."""
    with patched(torch.Tensor, "values", lambda true: lambda x: true(x).clone()):
        yield


@fault("views_of_other_types/the_values_of_a_sparse_tensor_are_a_view_of_it")
def the_last_value_passes_no_gradient_on():
    """The last of the values() of a sparse tensor passes no gradient on."""

    def make(true):
        def values(x):
            result = true(x)
            if result.requires_grad:
                keeps = torch.ones_like(result).detach()
                keeps[-1] = 0
                result.register_hook(lambda gradient: gradient * keeps)
            return result

        return values

    with patched(torch.Tensor, "values", make):
        yield
