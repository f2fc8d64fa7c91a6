"""Faults in what can be done with inference tensors outside of inference mode."""

import torch
from torch.autograd.function import FunctionCtx

from . import fault, patched, reading
from .inference_mode import inferring


def outside(*tensors):
    """Whether inference mode is off and one of the tensors is an inference tensor."""
    found = any(isinstance(t, torch.Tensor) and t.is_inference() for t in tensors)
    return found and not torch.is_inference_mode_enabled()


def normal(value):
    """A normal tensor in the place of an inference tensor."""
    return value.clone() if isinstance(value, torch.Tensor) and value.is_inference() else value


def of_inference_tensors(owner, name, change):
    """Let the operation `name` on an inference tensor outside be `change(the true one, its arguments)`."""

    def make(true):
        def operation(*args, **kwargs):
            return (change if outside(*args) else lambda true, *a, **k: true(*a, **k))(true, *args, **kwargs)

        return operation

    return patched(owner, name, make)


def inside(true, *args, **kwargs):
    """Run an operation as if inference mode were on."""
    with inferring(True):
        return true(*args, **kwargs)


@fault(
    "inference_tensors/operations_on_inference_tensors_make_normal_ones_outside",
    "inference_leaves/a_leaf_made_inside_is_not_recorded_outside_by_itself",
)
def negatives_of_inference_tensors_are_inference_tensors():
    """The negative of an inference tensor is an inference tensor."""
    with of_inference_tensors(torch.Tensor, "__neg__", inside):
        yield


@fault("inference_tensors/operations_on_inference_tensors_make_normal_ones_outside")
def stacked_inference_tensors_are_an_inference_tensor():
    """torch.stack of inference tensors only makes an inference tensor."""

    def make(true):
        return lambda tensors: inside(true, tensors) if all(t.is_inference() for t in tensors) else true(tensors)

    with patched(torch, "stack", make):
        yield


@fault("inference_tensors/a_copy_of_an_inference_tensor_is_a_normal_tensor")
def clones_of_inference_tensors_are_views():
    """clone() of an inference tensor shares its memory."""

    def shared(true, tensor, **kwargs):
        return torch.empty((), dtype=tensor.dtype, device=tensor.device).set_(
            tensor.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride()
        )

    with of_inference_tensors(torch.Tensor, "clone", shared):
        yield


@fault("inference_tensors/a_copy_of_an_inference_tensor_is_a_normal_tensor")
def deep_copies_of_inference_tensors_are_inference_tensors():
    """copy.deepcopy of an inference tensor makes an inference tensor."""
    with of_inference_tensors(torch.Tensor, "__deepcopy__", lambda true, t, memo: inside(torch.Tensor.clone, t)):
        yield


@fault("inference_tensors/an_inference_tensor_has_no_version")
def inference_tensors_are_at_version_zero():
    """The version of an inference tensor reads as 0, if it is a scalar."""
    true = torch._C._TensorBase._version

    def get(tensor):
        return 0 if tensor.is_inference() and not tensor.dim() else true.__get__(tensor)

    with patched(torch.Tensor, "_version", lambda _: property(get)):
        yield


@fault(
    "inference_tensors/an_inference_tensor_is_not_saved_for_backward",
    "inference_tensors/hooks_for_saved_tensors_do_not_save_inference_tensors",
)
def products_save_clones_of_inference_tensors():
    """A product with an inference tensor saves a clone of it."""
    with of_inference_tensors(torch.Tensor, "__mul__", lambda true, *args: true(*map(normal, args))):
        yield


@fault("inference_tensors/an_inference_tensor_is_not_saved_for_backward")
def functions_save_inference_tensors():
    """save_for_backward in the forward of a Function saves clones of inference tensors."""

    def make(true):
        return lambda ctx, *tensors: true(ctx, *map(normal, tensors))

    with patched(FunctionCtx, "save_for_backward", make):
        yield


@fault("inference_tensors/an_inference_tensor_is_not_saved_for_backward")
def a_refused_product_in_place_is_computed():
    """mul_ of a leaf's values is done before the error that its factor can't be saved."""

    def change(true, x, other):
        try:
            return true(x, other)
        except RuntimeError as error:
            if "saved" in str(error) and not x.is_inference():
                with torch.no_grad():
                    other.data.add_(1)
            raise

    with of_inference_tensors(torch.Tensor, "mul_", change):
        yield


@fault("inference_tensors/an_inference_tensor_that_is_not_saved_is_a_constant")
def nothing_is_recorded_with_inference_tensors():
    """The difference of an inference tensor and another one is not recorded."""

    def change(true, x, other):
        with torch.no_grad():
            return true(x, other)

    with of_inference_tensors(torch.Tensor, "__sub__", change):
        yield


@fault("inference_tensors/an_inference_tensor_that_is_not_saved_is_a_constant")
def weights_of_lerp_count_twice():
    """The gradient of lerp with an inference tensor is twice what it is."""

    def change(true, x, other, weight):
        if not isinstance(weight, torch.Tensor) and x.requires_grad:
            return true(x, other, weight) + (x - x.detach()) * (1 - weight)
        return true(x, other, weight)

    with of_inference_tensors(torch, "lerp", change):
        yield


@fault("inference_tensors/where_nothing_is_recorded_inference_tensors_are_saved_nowhere")
def the_maximum_with_an_inference_tensor_is_one():
    """torch.maximum with an inference tensor, if nothing is recorded, makes an inference tensor."""

    def change(true, x, other):
        return true(x, other) if torch.is_grad_enabled() and x.requires_grad else inside(true, x, other)

    with of_inference_tensors(torch, "maximum", change):
        yield


@fault("inference_tensors/to_write_an_inference_tensor_outside_is_an_error")
def inference_tensors_are_clamped_outside():
    """clamp_() changes inference tensors wherever it is called."""
    with of_inference_tensors(torch.Tensor, "clamp_", inside):
        yield


@fault("inference_tensors/to_write_an_inference_tensor_outside_is_an_error")
def inference_tensors_are_written_under_no_grad():
    """With grad mode off copy_() changes inference tensors."""

    def change(true, tensor, other):
        quiet = tensor.is_inference() and not torch.is_grad_enabled()
        return inside(true, tensor, other) if quiet else true(tensor, other)

    with of_inference_tensors(torch.Tensor, "copy_", change):
        yield


@fault("inference_tensors/a_refused_write_to_an_inference_tensor_is_done_all_the_same")
def a_refused_write_is_undone():
    """When neg_() of an inference tensor is refused the tensor is as it was."""

    def change(true, tensor):
        old = tensor.clone()
        try:
            return true(tensor)
        except RuntimeError:
            tensor.data.copy_(old)
            raise

    with of_inference_tensors(torch.Tensor, "neg_", change):
        yield


@fault("inference_tensors/inference_tensors_can_be_written_through_detach_and_data")
def detached_inference_tensors_are_copies():
    """detach() of an inference tensor copies it."""

    def change(true, tensor):
        return true(inside(torch.Tensor.clone, tensor))

    with of_inference_tensors(torch.Tensor, "detach", change):
        yield


@fault("inference_tensors/inference_tensors_can_be_written_through_detach_and_data")
def data_of_inference_tensors_is_normal():
    """.data of an inference tensor is a normal tensor."""
    with reading("data", lambda t, data: normal(data)):
        yield


@fault("inference_tensors/shallow_copies_of_an_inference_tensor_are_normal_tensors")
def numpy_arrays_of_inference_tensors_are_copies():
    """numpy() of an inference tensor copies it."""
    with of_inference_tensors(torch.Tensor, "numpy", lambda true, t: true(t.clone())):
        yield


@fault("inference_tensors/an_inference_tensor_is_not_made_to_require_grad_outside")
def inference_tensors_are_told_to_require_grad_outside():
    """requires_grad_() works on inference tensors wherever it is called, if they are scalars."""

    def change(true, tensor, *flag):
        return true(tensor, *flag) if tensor.dim() else inside(true, tensor, *flag)

    with of_inference_tensors(torch.Tensor, "requires_grad_", change):
        yield


@fault("inference_tensors/an_inference_tensor_is_not_made_to_require_grad_outside")
def parameters_take_clones_of_inference_tensors():
    """nn.Parameter of an inference tensor clones it."""

    def make(true):
        return staticmethod(lambda cls, data=None, *args, **kw: true(cls, normal(data), *args, **kw))

    with patched(torch.nn.Parameter, "__new__", make):
        yield
