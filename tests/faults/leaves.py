"""Faults in which tensors are leaves and which require grad."""

import torch

from . import after_backward, fault, patched, reading


@fault(
    "leaves/a_tensor_made_with_requires_grad_is_a_leaf",
    "leaves/floating_point_and_complex_tensors_can_require_grad",
    "leaves/a_result_is_a_leaf_if_no_input_requires_grad",
    "leaves/results_are_leaves_only_far_from_tensors_that_require_grad",
    "leaves/a_conversion_that_changes_nothing_gives_the_leaf_itself",
    "leaves/requires_grad_of_a_leaf_can_be_changed_at_any_time",
    "leaves/a_parameter_is_a_leaf",
)
def a_leaf_that_requires_grad_reads_as_none():
    """is_leaf is False for every tensor that requires grad."""
    with reading("is_leaf", lambda tensor, leaf: leaf and not tensor.requires_grad):
        yield


@fault("leaves/a_tensor_made_with_requires_grad_is_a_leaf")
def full_like_forgets_requires_grad():
    """full_like ignores requires_grad=True."""

    def make(true):
        return lambda *args, requires_grad=False, **more: true(*args, **more)

    with patched(torch, "full_like", make):
        yield


@fault("leaves/a_tensor_made_with_requires_grad_is_a_leaf")
def linspace_forgets_requires_grad():
    """torch.linspace ignores requires_grad."""

    def make(true):
        return lambda *args, requires_grad=False, **more: true(*args, **more)

    with patched(torch, "linspace", make):
        yield


@fault("leaves/a_tensor_does_not_require_grad_unless_asked")
def zeros_like_takes_over_requires_grad():
    """zeros_like of a tensor that requires grad requires grad, unless told otherwise."""

    def make(true):
        def zeros_like(x, **more):
            return true(x, **{"requires_grad": x.requires_grad, **more})

        return zeros_like

    with patched(torch, "zeros_like", make):
        yield


@fault("leaves/a_tensor_does_not_require_grad_unless_asked")
def new_tensor_requires_grad_although_told_otherwise():
    """new_tensor(requires_grad=False) makes a tensor that requires grad."""

    def make(true):
        return lambda x, data, **more: true(x, data, **more).requires_grad_("requires_grad" in more)

    with patched(torch.Tensor, "new_tensor", make):
        yield


@fault("leaves/a_tensor_does_not_require_grad_unless_asked")
def new_zeros_takes_over_requires_grad():
    """new_zeros requires grad if it isn't told otherwise and the tensor that it is a method of does."""

    def make(true):
        def new_zeros(x, *args, **more):
            return true(x, *args, **{"requires_grad": x.requires_grad, **more})

        return new_zeros

    with patched(torch.Tensor, "new_zeros", make):
        yield


@fault("leaves/integers_and_booleans_cannot_require_grad")
def asking_integers_in_place_is_no_error():
    """requires_grad_() does nothing to a tensor of integers or booleans."""

    def make(true):
        return lambda x, flag=True: true(x, flag and (x.is_floating_point() or x.is_complex()))

    with patched(torch.Tensor, "requires_grad_", make):
        yield


@fault("leaves/integers_and_booleans_cannot_require_grad")
def a_parameter_of_booleans_is_no_error():
    """A Parameter of booleans silently doesn't require grad."""

    def make(true):
        def new(cls, data=None, requires_grad=True):
            return true(cls, data, requires_grad and data.dtype is not torch.bool)

        return staticmethod(new)

    with patched(torch.nn.Parameter, "__new__", make):
        yield


@fault("leaves/floating_point_and_complex_tensors_can_require_grad")
def complex_numbers_never_require_grad():
    """requires_grad_() does nothing to a complex tensor."""

    def make(true):
        return lambda x, flag=True: true(x, flag and not x.is_complex())

    with patched(torch.Tensor, "requires_grad_", make):
        yield


@fault("leaves/floating_point_and_complex_tensors_can_require_grad")
def bfloat16_never_requires_grad():
    """A bfloat16 tensor reads as one that doesn't require grad."""
    with reading("requires_grad", lambda x, flag: flag and x.dtype is not torch.bfloat16):
        yield


@fault("leaves/a_result_is_a_leaf_if_no_input_requires_grad")
def where_overlooks_its_last_input():
    """The last input of where gets no gradient, and doesn't make the result require grad."""
    with patched(torch, "where", lambda true: lambda condition, a, b: true(condition, a, b.detach())):
        yield


@fault(
    "leaves/a_result_is_a_leaf_if_no_input_requires_grad",
    "leaves/results_are_leaves_only_far_from_tensors_that_require_grad",
)
def a_constant_in_no_dimension_reads_as_no_leaf():
    """is_leaf is False for a tensor of no dimension that doesn't require grad."""
    with reading("is_leaf", lambda x, leaf: leaf and (x.requires_grad or x.dim() > 0)):
        yield


@fault("leaves/results_are_leaves_only_far_from_tensors_that_require_grad")
def an_index_cuts_the_graph():
    """x[0] is detached."""

    def make(true):
        return lambda x, index: true(x, index).detach() if isinstance(index, int) else true(x, index)

    with patched(torch.Tensor, "__getitem__", make):
        yield


@fault(
    "leaves/not_even_a_copy_of_a_leaf_is_a_leaf",
    "leaves/requires_grad_of_a_result_cannot_be_turned_off",
    "leaves/a_tensor_is_a_leaf_exactly_if_it_has_no_grad_fn",
)
def a_clone_of_a_leaf_is_a_leaf():
    """clone() of a leaf gives a new leaf that requires grad if the old one does."""

    def make(true):
        return lambda x: true(x).detach().requires_grad_(x.requires_grad) if x.is_leaf else true(x)

    with patched(torch.Tensor, "clone", make):
        yield


@fault("leaves/not_even_a_copy_of_a_leaf_is_a_leaf")
def a_cast_cuts_the_graph():
    """A cast to another dtype is detached."""

    def make(true):
        def to(x, *args, **more):
            result = true(x, *args, **more)
            return result if result.dtype is x.dtype else result.detach()

        return to

    with patched(torch.Tensor, "to", make):
        yield


@fault("leaves/not_even_a_copy_of_a_leaf_is_a_leaf")
def half_of_a_leaf_is_a_leaf():
    """half() of a leaf gives a new leaf that requires grad if the old one does."""

    def make(true):
        return lambda x: true(x).detach().requires_grad_(x.requires_grad) if x.is_leaf else true(x)

    with patched(torch.Tensor, "half", make):
        yield


@fault("leaves/not_even_a_copy_of_a_leaf_is_a_leaf")
def a_clone_of_a_parameter_is_a_parameter():
    """clone() of a Parameter gives a new Parameter."""

    def make(true):
        def clone(x):
            return torch.nn.Parameter(true(x.detach())) if isinstance(x, torch.nn.Parameter) else true(x)

        return clone

    with patched(torch.Tensor, "clone", make):
        yield


@fault("leaves/a_conversion_that_changes_nothing_gives_the_leaf_itself")
def contiguous_always_copies():
    """contiguous() copies also what is contiguous."""
    with patched(torch.Tensor, "contiguous", lambda _: lambda x: x.clone()):
        yield


@fault("leaves/a_conversion_that_changes_nothing_gives_the_leaf_itself")
def as_tensor_detaches():
    """torch.as_tensor detaches the tensor that it is given."""
    with patched(torch, "as_tensor", lambda true: lambda x: true(x).detach()):
        yield


@fault("leaves/a_conversion_that_changes_nothing_gives_the_leaf_itself")
def double_always_copies():
    """double() copies float64, too."""
    with patched(torch.Tensor, "double", lambda true: lambda x: true(x).clone()):
        yield


@fault("leaves/a_conversion_that_changes_nothing_gives_the_leaf_itself")
def to_the_same_dtype_gives_an_alias():
    """to() of a tensor's own dtype gives another tensor over the same memory."""

    def make(true):
        return lambda x, *a, **more: x.view_as(x) if a and a[0] is x.dtype and not more else true(x, *a, **more)

    with patched(torch.Tensor, "to", make):
        yield


@fault("leaves/integers_and_booleans_computed_from_a_leaf_are_leaves")
def booleans_read_as_no_leaves():
    """is_leaf is False for booleans."""
    with reading("is_leaf", lambda x, leaf: leaf and x.dtype is not torch.bool):
        yield


@fault("leaves/integers_and_booleans_computed_from_a_leaf_are_leaves")
def int32_reads_as_requiring_grad():
    """A tensor of int32 reads as one that requires grad."""
    with reading("requires_grad", lambda x, flag: flag or x.dtype is torch.int32):
        yield


@fault("leaves/integers_and_booleans_computed_from_a_leaf_are_leaves")
def views_of_integers_read_as_requiring_grad():
    """requires_grad is true for a view of integers."""

    def spoil(tensor, required):
        return required or (tensor.dtype is torch.int64 and tensor._is_view())

    with reading("requires_grad", spoil):
        yield


@fault("leaves/requires_grad_of_a_leaf_can_be_changed_at_any_time")
def requires_grad_cannot_be_turned_off_in_place():
    """requires_grad_(False) does nothing to a leaf that requires grad."""

    def make(true):
        return lambda x, flag=True: true(x, flag or (x.is_leaf and x.requires_grad))

    with patched(torch.Tensor, "requires_grad_", make):
        yield


@fault("leaves/requires_grad_of_a_leaf_can_be_changed_at_any_time")
def turning_requires_grad_off_clears_grad():
    """To set requires_grad to False clears the .grad that a leaf has."""
    true = torch._C._TensorBase.requires_grad

    def assign(x, flag):
        true.__set__(x, flag)
        if not flag:
            x.grad = None

    with patched(torch.Tensor, "requires_grad", lambda _: property(true.__get__, assign)):
        yield


@fault("leaves/a_leaf_must_require_grad_in_both_passes_to_get_one")
def a_leaf_frozen_after_the_forward_gets_a_gradient():
    """Backward fills the .grad of a leaf that doesn't require grad any more."""

    def fill(leaf, before):
        if not leaf.requires_grad:
            leaf.grad = torch.ones_like(leaf)

    with after_backward(fill):
        yield


@fault("leaves/a_leaf_must_require_grad_in_both_passes_to_get_one")
def freezing_by_attribute_is_ignored():
    """To set requires_grad = False on a leaf that requires grad does nothing."""
    true = torch._C._TensorBase.requires_grad

    def assign(x, flag):
        if flag or not x.is_leaf:
            true.__set__(x, flag)

    with patched(torch.Tensor, "requires_grad", lambda _: property(true.__get__, assign)):
        yield


@fault("leaves/requires_grad_of_a_result_cannot_be_turned_off")
def turning_requires_grad_off_on_a_result_is_ignored():
    """requires_grad_(False) does nothing to a result, without an error."""
    with patched(torch.Tensor, "requires_grad_", lambda true: lambda x, flag=True: true(x, flag or not x.is_leaf)):
        yield


@fault("leaves/requires_grad_of_a_result_cannot_be_turned_off")
def a_refused_change_detaches_the_result():
    """requires_grad_(False) on a result that isn't a view raises its error but detaches the result."""

    def make(true):
        def requires_grad_(x, flag=True):
            try:
                return true(x, flag)
            except RuntimeError:
                if not x._is_view() and x.grad_fn:
                    x.detach_()
                raise

        return requires_grad_

    with patched(torch.Tensor, "requires_grad_", make):
        yield


@fault("leaves/a_tensor_is_a_leaf_exactly_if_it_has_no_grad_fn")
def a_view_of_a_result_reads_without_a_grad_fn():
    """The grad_fn of a view of a result reads as None."""
    with reading("grad_fn", lambda x, node: None if x._is_view() and not x._base.is_leaf else node):
        yield


@fault("leaves/a_parameter_is_a_leaf")
def a_parameter_of_a_result_copies_it():
    """A Parameter that is made of a result has memory of its own."""

    def make(true):
        def new(cls, data=None, requires_grad=True):
            return true(cls, data if data.is_leaf else data.detach().clone(), requires_grad)

        return staticmethod(new)

    with patched(torch.nn.Parameter, "__new__", make):
        yield


@fault("leaves/a_parameter_is_a_leaf")
def a_parameter_in_no_dimension_always_requires_grad():
    """A Parameter that is made of a single number requires grad although made with requires_grad=False."""

    def make(true):
        def new(cls, data=None, requires_grad=True):
            return true(cls, data, requires_grad or data.dim() == 0)

        return staticmethod(new)

    with patched(torch.nn.Parameter, "__new__", make):
        yield


@fault("leaves/the_output_of_a_frozen_module_is_a_leaf_if_the_input_requires_no_grad")
def a_frozen_layer_cuts_the_graph():
    """The output of a linear layer whose weight is frozen is detached."""

    def make(true):
        return lambda layer, x: true(layer, x) if layer.weight.requires_grad else true(layer, x).detach()

    with patched(torch.nn.Linear, "forward", make):
        yield


@fault("leaves/the_output_of_a_frozen_module_is_a_leaf_if_the_input_requires_no_grad")
def freezing_a_module_spares_its_last_parameter():
    """requires_grad_(False) on a module leaves its last parameter as it was."""

    def make(true):
        def requires_grad_(module, flag=True):
            for p in list(module.parameters())[:-1]:
                p.requires_grad_(flag)
            return module

        return requires_grad_

    with patched(torch.nn.Module, "requires_grad_", make):
        yield


def setting_requires_grad(assign):
    """A fault that lets `assign(set, tensor, flag)` do what setting requires_grad does; `set` does it truly."""
    true = torch._C._TensorBase.requires_grad
    put = property(true.__get__, lambda tensor, flag: assign(true.__set__, tensor, flag))
    return patched(torch.Tensor, "requires_grad", lambda _: put)


@fault("leaves/requires_grad_of_a_result_cannot_be_turned_off")
def requires_grad_of_a_result_can_be_set_to_true():
    """Setting requires_grad of a result to True does nothing, without an error."""
    with setting_requires_grad(lambda put, x, flag: put(x, flag) if x.is_leaf or flag is not True else None):
        yield


@fault("leaves/requires_grad_is_true_or_false_and_nothing_else")
def requires_grad_takes_none_for_false():
    """Setting requires_grad to None sets it to False."""
    with setting_requires_grad(lambda put, x, flag: put(x, False if flag is None else flag)):
        yield


@fault("leaves/requires_grad_is_true_or_false_and_nothing_else")
def requires_grad_in_place_takes_a_one():
    """requires_grad_(1) does what requires_grad_(True) does."""

    def make(true):
        return lambda x, flag=True: true(x, True if type(flag) is int and flag == 1 else flag)

    with patched(torch.Tensor, "requires_grad_", make):
        yield


@fault("leaves/the_place_of_a_tensor_in_the_graph_cannot_be_assigned")
def is_leaf_of_a_constant_can_be_set():
    """Setting is_leaf of a tensor that doesn't require grad does nothing, without an error."""
    true = torch._C._TensorBase.is_leaf

    def assign(x, flag):
        if x.requires_grad:
            true.__set__(x, flag)

    with patched(torch.Tensor, "is_leaf", lambda _: property(true.__get__, assign, true.__delete__)):
        yield


@fault("leaves/the_place_of_a_tensor_in_the_graph_cannot_be_assigned")
def grad_fn_can_be_deleted():
    """`del x.grad_fn` does nothing, without an error."""
    true = torch._C._TensorBase.grad_fn
    with patched(torch.Tensor, "grad_fn", lambda _: property(true.__get__, true.__set__, lambda x: None)):
        yield
