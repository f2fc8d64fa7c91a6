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


@fault("leaves/a_detached_tensor_is_a_leaf_that_shares_its_storage")
def detach_gives_memory_of_its_own():
    """detach() gives a tensor of its own memory."""
    with patched(torch.Tensor, "detach", lambda true: lambda x: true(x).clone()):
        yield


@fault("leaves/a_detached_tensor_is_a_leaf_that_shares_its_storage")
def detach_detaches_the_original_too():
    """detach() of a result that isn't a view takes the original out of the graph as well."""

    def make(true):
        return lambda x: true(x if x.is_leaf or x._is_view() else x.detach_())

    with patched(torch.Tensor, "detach", make):
        yield


@fault("leaves/a_detached_tensor_is_a_leaf_that_shares_its_storage")
def data_requires_grad():
    """.data of a tensor that requires grad requires grad."""
    with reading("data", lambda x, data: data.requires_grad_(x.requires_grad)):
        yield


@fault("leaves/detaching_always_gives_another_tensor")
def detach_gives_a_constant_itself():
    """detach() of a tensor that doesn't require grad gives the tensor itself."""
    with patched(torch.Tensor, "detach", lambda true: lambda x: true(x) if x.requires_grad else x):
        yield


@fault("leaves/detaching_always_gives_another_tensor")
def detach_of_a_parameter_is_a_frozen_parameter():
    """detach() of a Parameter gives a Parameter that doesn't require grad."""

    def make(true):
        def detach(x):
            detached = true(x)
            return torch.nn.Parameter(detached, False) if isinstance(x, torch.nn.Parameter) else detached

        return detach

    with patched(torch.Tensor, "detach", make):
        yield


@fault(
    "leaves/no_gradient_flows_through_a_detached_tensor",
    "leaves/a_detached_tensor_is_a_leaf_that_shares_its_storage",
    "leaves/a_tensor_is_a_leaf_exactly_if_it_has_no_grad_fn",
    "leaves/a_tensor_without_history_can_become_a_leaf_that_requires_grad",
)
def a_detached_result_stays_in_the_graph():
    """detach() of a result gives a view of it that is still in the graph."""
    with patched(torch.Tensor, "detach", lambda true: lambda x: true(x) if x.is_leaf else x.view_as(x)):
        yield


@fault("leaves/no_gradient_flows_through_a_detached_tensor")
def a_detached_leaf_stays_in_the_graph():
    """detach() of a leaf of several elements gives a view of it that is in the graph."""

    def make(true):
        return lambda x: x.view_as(x) if x.is_leaf and x.requires_grad and x.numel() > 1 else true(x)

    with patched(torch.Tensor, "detach", make):
        yield


@fault("leaves/detach_in_place_makes_a_result_a_leaf")
def detach_in_place_leaves_a_view_alone():
    """detach_() does nothing to a view, without an error."""
    with patched(torch.Tensor, "detach_", lambda true: lambda x: x if x._is_view() else true(x)):
        yield


@fault("leaves/detach_in_place_makes_a_result_a_leaf")
def detach_in_place_works_on_another_tensor():
    """detach_() of a result returns a detached tensor and leaves the result in the graph."""
    with patched(torch.Tensor, "detach_", lambda true: lambda x: true(x) if x._is_view() else x.detach()):
        yield


@fault("leaves/detach_in_place_only_turns_requires_grad_of_a_leaf_off")
def detach_in_place_clears_grad():
    """detach_() makes the .grad of a leaf None."""

    def make(true):
        def detach_(x):
            x.grad = None
            return true(x)

        return detach_

    with patched(torch.Tensor, "detach_", make):
        yield


@fault("leaves/detach_in_place_only_turns_requires_grad_of_a_leaf_off")
def detach_in_place_leaves_parameters_alone():
    """detach_() does nothing to a Parameter."""

    def make(true):
        return lambda x: x if isinstance(x, torch.nn.Parameter) else true(x)

    with patched(torch.Tensor, "detach_", make):
        yield


@fault("leaves/a_tensor_without_history_can_become_a_leaf_that_requires_grad")
def requires_grad_in_place_returns_an_alias():
    """requires_grad_() returns another tensor over the same memory."""
    with patched(torch.Tensor, "requires_grad_", lambda true: lambda x, *flag: true(x, *flag).view_as(x)):
        yield


@fault(
    "leaves/a_tensor_without_history_can_become_a_leaf_that_requires_grad",
    "leaves/a_tensor_is_a_leaf_exactly_if_it_has_no_grad_fn",
)
def a_view_of_a_constant_cannot_require_grad():
    """requires_grad_() does nothing to a view that doesn't require grad."""

    def make(true):
        return lambda x, *flag: x if x._is_view() and not x.requires_grad else true(x, *flag)

    with patched(torch.Tensor, "requires_grad_", make):
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


@fault("leaves/a_deep_copy_of_a_leaf_is_a_leaf_of_its_own")
def a_deep_copy_of_a_number_does_not_require_grad():
    """copy.deepcopy of a leaf in no dimension gives one that doesn't require grad."""

    def make(true):
        def copied(x, memo):
            result = true(x, memo)
            return result if x.dim() else result.requires_grad_(False)

        return copied

    with patched(torch.Tensor, "__deepcopy__", make):
        yield


@fault("leaves/a_deep_copy_of_a_leaf_is_a_leaf_of_its_own")
def a_deep_copy_of_a_result_is_detached():
    """copy.deepcopy of a result gives a copy without its history."""
    with patched(torch.Tensor, "__deepcopy__", lambda true: lambda x, memo: true(x if x.is_leaf else x.detach(), memo)):
        yield


@fault("leaves/a_deep_copy_of_a_leaf_is_a_leaf_of_its_own")
def a_deep_copy_shares_its_grad():
    """copy.deepcopy of a leaf gives one with the very same .grad."""

    def make(true):
        def copied(x, memo):
            result = true(x, memo)
            result.grad = x.grad
            return result

        return copied

    with patched(torch.Tensor, "__deepcopy__", make):
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
