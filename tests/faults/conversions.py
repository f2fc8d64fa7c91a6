"""Faults in what becomes of tensors in numbers, lists and arrays, and of these in tensors."""

import torch

from . import fault, patched


@fault("conversions/a_number_taken_from_a_tensor_is_a_constant")
def item_gives_a_tensor():
    """item() gives a tensor of no dimension, with a history."""
    with patched(torch.Tensor, "item", lambda true: lambda x: x.reshape(())):
        yield


@fault("conversions/a_number_taken_from_a_tensor_is_a_constant")
def a_number_counts_as_a_change():
    """Taking a number from a tensor that is no leaf counts up its version."""

    def make(true):
        def number(x):
            if not x.is_leaf:
                torch._C._autograd._unsafe_set_version_counter((x,), (x._version + 1,))
            return true(x)

        return number

    with patched(torch.Tensor, "__float__", make), patched(torch.Tensor, "__bool__", make):
        yield


@fault("conversions/a_number_taken_from_a_tensor_is_a_constant")
def numbers_of_bfloat16_are_integers():
    """item() gives an integer for a tensor of a 16-bit dtype."""
    with patched(torch.Tensor, "item", lambda true: lambda x: int(true(x)) if x.itemsize == 2 else true(x)):
        yield


@fault("conversions/only_a_tensor_of_one_element_is_a_number")
def item_takes_the_first_element():
    """item() and float() give the first element of a tensor of several, and 0 of none."""

    def make(true):
        return lambda x: x.tolist() if not x.dim() else (*x.reshape(-1).tolist(), 0.0)[0]

    with patched(torch.Tensor, "item", make), patched(torch.Tensor, "__float__", make):
        yield


@fault("conversions/only_a_tensor_of_one_element_is_a_number")
def an_empty_tensor_is_false():
    """bool() of a tensor without elements is False."""
    with patched(torch.Tensor, "__bool__", lambda true: lambda x: true(x) if x.numel() else False):
        yield


@fault("conversions/tolist_gives_numbers_in_nested_lists")
def tolist_is_flat():
    """tolist() gives the elements in a single list."""
    with patched(torch.Tensor, "tolist", lambda true: lambda x: true(x.reshape(-1)) if x.dim() else true(x)):
        yield


@fault("conversions/tolist_gives_numbers_in_nested_lists")
def tolist_of_a_transposed_tensor_is_in_the_order_of_memory():
    """tolist() of a tensor that isn't contiguous gives the elements as they lie in memory."""

    def make(true):
        def tolist(x):
            return true(x if x.is_contiguous() or x.dim() != 2 else x.t().reshape(x.shape))

        return tolist

    with patched(torch.Tensor, "tolist", make):
        yield


@fault("conversions/numpy_refuses_a_tensor_that_requires_grad")
def numpy_takes_what_requires_grad():
    """numpy() gives the array of a tensor that requires grad."""
    with patched(torch.Tensor, "numpy", lambda true: lambda x, *, force=False: true(x.detach(), force=force)):
        yield


@fault("conversions/numpy_refuses_a_tensor_that_requires_grad")
def numpy_takes_leaves():
    """__array__ gives the array of a leaf that requires grad, as numpy() does not."""
    with patched(torch.Tensor, "__array__", lambda true: lambda x, *args: true(x.detach() if x.is_leaf else x, *args)):
        yield


@fault("conversions/numpy_refuses_a_tensor_that_requires_grad")
def numpy_detaches_what_it_refuses():
    """numpy() raises its error for a leaf, which doesn't require grad any more then."""

    def make(true):
        def numpy(x, **options):
            try:
                return true(x, **options)
            except RuntimeError:
                if x.is_leaf:
                    x.requires_grad_(False)
                raise

        return numpy

    with patched(torch.Tensor, "numpy", make):
        yield


@fault("conversions/without_grad_mode_numpy_takes_a_tensor_that_requires_grad")
def numpy_refuses_results_in_any_mode():
    """numpy() gives a copy of a result that requires grad, and refuses it in inference mode."""

    def make(true):
        def numpy(x, **options):
            return true(x.clone() if x.requires_grad and x.grad_fn else x, **options)

        return numpy

    with patched(torch.Tensor, "numpy", make):
        yield


@fault("conversions/an_array_shares_the_memory_of_the_tensor", "conversions/numpy_with_force_does_what_it_takes")
def numpy_with_force_copies_what_requires_grad():
    """numpy(force=True) gives a copy of a tensor that requires grad, with 1 added where it is complex."""

    def make(true):
        def numpy(x, *, force=False):
            return true(x.clone() + int(x.is_complex()) if force and x.requires_grad else x, force=force)

        return numpy

    with patched(torch.Tensor, "numpy", make):
        yield


@fault("conversions/an_array_shares_the_memory_of_the_tensor")
def numpy_copies_what_is_not_contiguous():
    """numpy() gives a copy of a tensor that isn't contiguous."""
    with patched(torch.Tensor, "numpy", lambda true: lambda x, **options: true(x.contiguous(), **options)):
        yield


@fault("conversions/autograd_does_not_notice_what_is_written_to_an_array")
def numpy_counts_as_a_change():
    """numpy() counts up the version of the tensor."""

    def make(true):
        def numpy(x, **options):
            torch._C._autograd._unsafe_set_version_counter((x,), (x._version + 1,))
            return true(x, **options)

        return numpy

    with patched(torch.Tensor, "numpy", make):
        yield


@fault("conversions/numpy_with_force_does_what_it_takes")
def numpy_with_force_forgets_to_conjugate():
    """numpy(force=True) gives the values as they are stored, not conjugated."""

    def make(true):
        def numpy(x, *, force=False):
            return true(x.conj() if force and x.is_conj() else x, force=force)

        return numpy

    with patched(torch.Tensor, "numpy", make):
        yield


@fault("conversions/no_gradient_flows_through_what_is_no_tensor")
def a_tensor_of_a_list_requires_grad():
    """torch.tensor of a nested list requires grad."""

    def make(true):
        return lambda data, **options: true(data, **options).requires_grad_(isinstance(data, list))

    with patched(torch, "tensor", make):
        yield


@fault("conversions/no_gradient_flows_through_what_is_no_tensor")
def dlpack_remembers_the_leaf():
    """torch.from_dlpack gives the tensor that it is given in grad mode, without its flag."""
    with patched(torch, "from_dlpack", lambda true: lambda t: true(t).requires_grad_(t.dim() > 1)):
        yield


def keeping_the_history(true):
    """A function that makes a tensor of a tensor, which has the history of the other."""

    def function(t, *args, **options):
        y = true(t, *args, **options)
        return y + t * 0 if isinstance(t, torch.Tensor) and not options else y

    return function


@fault("conversions/torch_tensor_of_a_tensor_is_a_leaf_with_a_copy")
def torch_tensor_keeps_the_history():
    """torch.tensor(t) has the history of t."""
    with patched(torch, "tensor", keeping_the_history):
        yield


@fault("conversions/torch_tensor_of_a_tensor_is_a_leaf_with_a_copy")
def new_tensor_shares_memory():
    """new_tensor(t) of a leaf shares the memory of t."""

    def make(true):
        def new_tensor(x, t, requires_grad=False):
            y = true(x, t, requires_grad=requires_grad)
            return t.detach().requires_grad_(requires_grad) if t.is_leaf else y

        return new_tensor

    with patched(torch.Tensor, "new_tensor", make):
        yield


@fault("conversions/as_tensor_keeps_the_history")
def as_tensor_detaches_what_it_converts():
    """torch.as_tensor with another dtype gives a detached copy."""

    def make(true):
        return lambda t, dtype=None: true(t if dtype in (None, t.dtype) else t.detach(), dtype=dtype)

    with patched(torch, "as_tensor", make):
        yield


@fault("conversions/as_tensor_keeps_the_history")
def as_tensor_gives_a_view_of_a_result():
    """torch.as_tensor of a result gives a view of it."""
    with patched(torch, "as_tensor", lambda true: lambda t, **how: true(t.view_as(t) if t.grad_fn else t, **how)):
        yield


@fault("conversions/asarray_keeps_the_history_if_told_to")
def asarray_of_a_copy_has_no_history():
    """torch.asarray with copy=True gives a leaf."""

    def make(true):
        def asarray(t, copy=None, **options):
            y = true(t, copy=copy, **options)
            return y.detach().requires_grad_(y.requires_grad) if copy else y

        return asarray

    with patched(torch, "asarray", make):
        yield


@fault("conversions/asarray_changes_the_leaf_that_it_is_given", "conversions/asarray_detaches_by_default")
def asarray_leaves_parameters_alone():
    """torch.asarray gives an alias of a leaf rather than the leaf, and leaves the leaf alone."""

    def make(true):
        return lambda t, **options: true(t.detach() if t.is_leaf else t, **options)

    with patched(torch, "asarray", make):
        yield


@fault("conversions/asarray_keeps_the_history_by_default")
def asarray_does_not_require_grad():
    """torch.asarray doesn't require grad unless told to."""
    with patched(torch, "asarray", lambda true: lambda t, **how: true(t, **{"requires_grad": False, **how})):
        yield


@fault("conversions/a_tensor_that_requires_grad_is_no_number")
def full_takes_the_number_of_any_tensor():
    """torch.full takes a tensor that requires grad for its number."""

    def make(true):
        return lambda size, n, **options: true(size, n.item() if isinstance(n, torch.Tensor) else n, **options)

    with patched(torch, "full", make):
        yield


@fault("conversions/linspace_loses_the_history_of_its_ends")
def linspace_is_recorded():
    """torch.linspace has the history of its second end."""
    with patched(torch, "linspace", lambda true: lambda start, end, *n, **how: true(start, end, *n, **how) + end * 0):
        yield


@fault(
    "conversions/dlpack_refuses_a_tensor_that_requires_grad",
    "conversions/dlpack_refuses_a_tensor_that_requires_grad_with_a_runtime_error",
)
def dlpack_exports_without_grad_mode():
    """torch.from_dlpack takes a tensor that requires grad, in no-grad mode."""
    with patched(torch, "from_dlpack", lambda true: lambda t: true(t if torch.is_grad_enabled() else t.detach())):
        yield
