"""Faults in detaching, and in what begins a new graph."""

import torch

from . import fault, patched, reading


@fault("detaching/a_detached_tensor_is_a_leaf_that_shares_its_storage")
def detach_gives_memory_of_its_own():
    """detach() gives a tensor of its own memory."""
    with patched(torch.Tensor, "detach", lambda true: lambda x: true(x).clone()):
        yield


@fault("detaching/a_detached_tensor_is_a_leaf_that_shares_its_storage")
def detach_detaches_the_original_too():
    """detach() of a result that isn't a view takes the original out of the graph as well."""

    def make(true):
        return lambda x: true(x if x.is_leaf or x._is_view() else x.detach_())

    with patched(torch.Tensor, "detach", make):
        yield


@fault("detaching/a_detached_tensor_is_a_leaf_that_shares_its_storage")
def data_requires_grad():
    """.data of a tensor that requires grad requires grad."""
    with reading("data", lambda x, data: data.requires_grad_(x.requires_grad)):
        yield


@fault("detaching/detaching_always_gives_another_tensor")
def detach_gives_a_constant_itself():
    """detach() of a tensor that doesn't require grad gives the tensor itself."""
    with patched(torch.Tensor, "detach", lambda true: lambda x: true(x) if x.requires_grad else x):
        yield


@fault("detaching/detaching_always_gives_another_tensor")
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
    "detaching/no_gradient_flows_through_a_detached_tensor",
    "detaching/a_detached_tensor_is_a_leaf_that_shares_its_storage",
    "leaves/a_tensor_is_a_leaf_exactly_if_it_has_no_grad_fn",
    "detaching/a_tensor_without_history_can_become_a_leaf_that_requires_grad",
)
def a_detached_result_stays_in_the_graph():
    """detach() of a result gives a view of it that is still in the graph."""
    with patched(torch.Tensor, "detach", lambda true: lambda x: true(x) if x.is_leaf else x.view_as(x)):
        yield


@fault("detaching/no_gradient_flows_through_a_detached_tensor")
def a_detached_leaf_stays_in_the_graph():
    """detach() of a leaf of several elements gives a view of it that is in the graph."""

    def make(true):
        return lambda x: x.view_as(x) if x.is_leaf and x.requires_grad and x.numel() > 1 else true(x)

    with patched(torch.Tensor, "detach", make):
        yield


@fault("detaching/detach_in_place_makes_a_result_a_leaf")
def detach_in_place_leaves_a_view_alone():
    """detach_() does nothing to a view, without an error."""
    with patched(torch.Tensor, "detach_", lambda true: lambda x: x if x._is_view() else true(x)):
        yield


@fault("detaching/detach_in_place_makes_a_result_a_leaf")
def detach_in_place_works_on_another_tensor():
    """detach_() of a result returns a detached tensor and leaves the result in the graph."""
    with patched(torch.Tensor, "detach_", lambda true: lambda x: true(x) if x._is_view() else x.detach()):
        yield


@fault("detaching/detach_in_place_only_turns_requires_grad_of_a_leaf_off")
def detach_in_place_clears_grad():
    """detach_() makes the .grad of a leaf None."""

    def make(true):
        def detach_(x):
            x.grad = None
            return true(x)

        return detach_

    with patched(torch.Tensor, "detach_", make):
        yield


@fault("detaching/detach_in_place_only_turns_requires_grad_of_a_leaf_off")
def detach_in_place_leaves_parameters_alone():
    """detach_() does nothing to a Parameter."""

    def make(true):
        return lambda x: x if isinstance(x, torch.nn.Parameter) else true(x)

    with patched(torch.Tensor, "detach_", make):
        yield


@fault("detaching/a_tensor_without_history_can_become_a_leaf_that_requires_grad")
def requires_grad_in_place_returns_an_alias():
    """requires_grad_() returns another tensor over the same memory."""
    with patched(torch.Tensor, "requires_grad_", lambda true: lambda x, *flag: true(x, *flag).view_as(x)):
        yield


@fault(
    "detaching/a_tensor_without_history_can_become_a_leaf_that_requires_grad",
    "leaves/a_tensor_is_a_leaf_exactly_if_it_has_no_grad_fn",
)
def a_view_of_a_constant_cannot_require_grad():
    """requires_grad_() does nothing to a view that doesn't require grad."""

    def make(true):
        return lambda x, *flag: x if x._is_view() and not x.requires_grad else true(x, *flag)

    with patched(torch.Tensor, "requires_grad_", make):
        yield


@fault("detaching/a_deep_copy_of_a_leaf_is_a_leaf_of_its_own")
def a_deep_copy_of_a_number_does_not_require_grad():
    """copy.deepcopy of a leaf in no dimension gives one that doesn't require grad."""

    def make(true):
        def copied(x, memo):
            result = true(x, memo)
            return result if x.dim() else result.requires_grad_(False)

        return copied

    with patched(torch.Tensor, "__deepcopy__", make):
        yield


@fault("detaching/a_deep_copy_of_a_leaf_is_a_leaf_of_its_own")
def a_deep_copy_of_a_result_is_detached():
    """copy.deepcopy of a result gives a copy without its history."""
    with patched(torch.Tensor, "__deepcopy__", lambda true: lambda x, memo: true(x if x.is_leaf else x.detach(), memo)):
        yield


@fault("detaching/a_deep_copy_of_a_leaf_is_a_leaf_of_its_own")
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


def setting_data(assign):
    """A fault that lets `assign(set, tensor, data)` do what setting .data does; `set` does it truly."""
    true = torch._C._TensorBase.data
    put = property(true.__get__, lambda tensor, data: assign(true.__set__, tensor, data))
    return patched(torch.Tensor, "data", lambda _: put)


@fault("detaching/setting_data_gives_a_leaf_other_values_and_leaves_the_rest")
def setting_data_copies():
    """Setting .data puts a copy of the tensor there."""
    with setting_data(lambda put, x, data: put(x, data.clone())):
        yield


@fault("detaching/setting_data_gives_a_leaf_other_values_and_leaves_the_rest")
def setting_data_of_another_shape_clears_grad():
    """Setting .data to a tensor of another shape sets .grad to None."""

    def assign(put, x, data):
        if x.shape != data.shape:
            x.grad = None
        put(x, data)

    with setting_data(assign):
        yield


@fault("detaching/setting_data_gives_a_leaf_other_values_and_leaves_the_rest")
def setting_data_to_another_dtype_freezes_the_leaf():
    """Setting .data to a tensor of another floating point dtype makes a leaf one that doesn't require grad."""

    def assign(put, x, data):
        changes = data.is_floating_point() and x.dtype != data.dtype
        put(x, data)
        if changes:
            x.requires_grad_(False)

    with setting_data(assign):
        yield
