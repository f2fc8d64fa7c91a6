"""Faults in the gradients of layers, and in training and evaluation mode."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from . import fault, patched, reading


@contextlib.contextmanager
def wrong_linear(gradient: Callable[..., tuple]) -> Iterator[None]:
    """Let gradient(cotangent, x, weight, bias, true gradients) say what a Linear layer passes back."""

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight, bias):
            ctx.args = x, weight, bias
            return true(x, weight, bias)

        @staticmethod
        def backward(ctx, cotangent):
            x, weight, bias = ctx.args
            with torch.enable_grad():
                inputs = [t.detach().requires_grad_() for t in ctx.args if t is not None]
                right = torch.autograd.grad(true(*inputs), inputs, cotangent)
            return gradient(cotangent, x, weight, bias, *right, *[None] * (3 - len(right)))

    true = nn.functional.linear
    with patched(nn.functional, "linear", lambda _: lambda x, weight, bias=None: Wrong.apply(x, weight, bias)):
        yield


@contextlib.contextmanager
def calling(spoil: Callable[[nn.Module, torch.Tensor, Callable[[torch.Tensor], torch.Tensor]], Any]) -> Iterator[None]:
    """Let calling a module on x give spoil(module, x, what it does truly)."""

    def make(true: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        return lambda module, x: spoil(module, x, lambda y: true(module, y))

    with patched(nn.Module, "__call__", make):
        yield


@fault("modules/the_gradients_of_a_linear_layer", "modules/every_use_of_a_parameter_counts")
def the_bias_gets_the_mean_of_the_batch():
    """The gradient of a Linear layer's bias is the mean over the batch, not the sum."""

    def gradient(cotangent, x, weight, bias, by_x, by_weight, by_bias):
        batch = max(1, cotangent.numel() // cotangent.shape[-1])
        return by_x, by_weight, None if by_bias is None else by_bias / batch

    with wrong_linear(gradient):
        yield


@fault("modules/the_gradients_of_a_linear_layer")
def the_gradient_of_a_square_weight_is_transposed():
    """The gradient of a Linear layer's weight is transposed, if it is square."""

    def gradient(cotangent, x, weight, bias, by_x, by_weight, by_bias):
        return by_x, by_weight.t() if weight.shape[0] == weight.shape[1] else by_weight, by_bias

    with wrong_linear(gradient):
        yield


@fault("modules/the_gradients_of_a_linear_layer")
def only_the_first_of_two_batch_dimensions_counts():
    """The weight of a Linear layer gets no gradient from all but the first rows of a three-dimensional input."""

    def gradient(cotangent, x, weight, bias, by_x, by_weight, by_bias):
        if x.dim() == 3:
            by_weight = cotangent[:, 0].t() @ x[:, 0]
        return by_x, by_weight, by_bias

    with wrong_linear(gradient):
        yield


@fault("modules/the_gradients_of_a_linear_layer")
def the_gradient_of_the_first_input_goes_to_the_whole_batch():
    """Every row of a batch gets the input gradient of the first one."""

    def gradient(cotangent, x, weight, bias, by_x, by_weight, by_bias):
        return by_x[:1].expand_as(by_x) if x.dim() > 1 else by_x, by_weight, by_bias

    with wrong_linear(gradient):
        yield


@fault("modules/every_use_of_a_parameter_counts")
def a_parameter_used_twice_gets_half():
    """Backward halves the gradient of a parameter that was used more than once in the graph."""

    def make(true):
        def backward(tensors, *args, **kwargs):
            roots = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
            nodes, seen, uses = [root.grad_fn for root in roots if root.grad_fn], set(), {}
            while nodes:
                node = nodes.pop()
                if node in seen:
                    continue
                seen.add(node)
                for below, _ in node.next_functions:
                    uses[below] = uses.get(below, 0) + 1
                    nodes += [below] if below else []
            true(tensors, *args, **kwargs)
            for node, count in uses.items():
                leaf = getattr(node, "variable", None)
                if count > 1 and isinstance(leaf, nn.Parameter) and leaf.grad is not None:
                    leaf.grad = leaf.grad / 2

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault(
    "modules/every_use_of_a_parameter_counts",
    "freezing/zero_grad_resets_the_gradients_of_all_parameters",
    "freezing/zero_grad_sets_grad_to_none",
)
def gradients_of_parameters_read_as_zeros_for_none():
    """The .grad of a parameter that requires grad reads as zeros where it is None."""

    def zeros(tensor, grad):
        if grad is None and isinstance(tensor, nn.Parameter) and tensor.requires_grad:
            return torch.zeros_like(tensor).detach()
        return grad

    with reading("grad", zeros):
        yield


@fault("modules/eval_and_train_switch_a_module_and_all_in_it")
def the_mode_of_grandchildren_is_forgotten():
    """eval() and train() switch a module and its children, but no module further down."""

    def train(module, mode=True):
        for part in (module, *module.children()):
            part.training = mode
        return module

    with patched(nn.Module, "train", lambda _: train):
        yield


@fault("modules/eval_and_train_switch_a_module_and_all_in_it")
def train_does_not_reach_what_eval_did():
    """train() takes the module itself out of evaluation mode, but leaves its children in it."""

    def make(true):
        def train(module, mode=True):
            module.training = mode
            return module if mode else true(module, mode)

        return train

    with patched(nn.Module, "train", make):
        yield


@fault("modules/eval_and_train_switch_a_module_and_all_in_it")
def eval_returns_none():
    """eval() returns nothing."""
    with patched(nn.Module, "eval", lambda true: lambda module: (true(module), None)[1]):
        yield


@fault(
    "modules/evaluation_mode_stops_no_gradient",
    "modules/grad_mode_and_training_mode_leave_each_other_alone",
)
def evaluation_mode_turns_grad_mode_off():
    """Putting a module into evaluation mode turns grad mode off, and training mode turns it on."""

    def make(true):
        def train(module, mode=True):
            torch.set_grad_enabled(mode)
            return true(module, mode)

        return train

    try:
        with patched(nn.Module, "train", make):
            yield
    finally:
        torch.set_grad_enabled(True)


@fault("modules/evaluation_mode_stops_no_gradient")
def evaluation_mode_detaches_the_output():
    """What a module in evaluation mode gives is detached."""
    with calling(lambda module, x, true: true(x) if module.training else true(x).detach()):
        yield


@fault("modules/evaluation_mode_stops_no_gradient")
def evaluation_mode_freezes():
    """Evaluation mode freezes a module's parameters, and training mode frees them."""

    def make(true):
        def train(module, mode=True):
            for parameter in module.parameters():
                parameter.requires_grad_(mode)
            return true(module, mode)

        return train

    with patched(nn.Module, "train", make):
        yield


@fault(
    "modules/evaluation_mode_stops_no_gradient",
    "modules/grad_mode_and_training_mode_leave_each_other_alone",
)
def eval_itself_freezes_parameters():
    """eval(), unlike train(False), freezes the parameters of the module."""

    def make(true):
        def evaluate(module):
            for parameter in module.parameters():
                parameter.requires_grad_(False)
            return true(module)

        return evaluate

    with patched(nn.Module, "eval", make):
        yield


@fault(
    "modules/evaluation_mode_stops_no_gradient",
    "modules/grad_mode_and_training_mode_leave_each_other_alone",
)
def eval_itself_turns_grad_mode_off():
    """eval(), unlike train(False), turns grad mode off."""

    def make(true):
        def evaluate(module):
            torch.set_grad_enabled(False)
            return true(module)

        return evaluate

    try:
        with patched(nn.Module, "eval", make):
            yield
    finally:
        torch.set_grad_enabled(True)


@fault("modules/grad_mode_and_training_mode_leave_each_other_alone")
def calling_a_module_under_no_grad_ends_its_training():
    """A module that is called while grad mode is off goes into evaluation mode."""

    def end(module, x, true):
        if not torch.is_grad_enabled():
            object.__setattr__(module, "training", False)
        return true(x)

    with calling(end):
        yield


@fault("modules/grad_mode_and_training_mode_leave_each_other_alone")
def training_mode_records_under_no_grad():
    """A module in training mode records its operations whatever grad mode says."""

    def record(module, x, true):
        with torch.set_grad_enabled(module.training or torch.is_grad_enabled()):
            return true(x)

    with calling(record):
        yield


@fault("modules/dropout_in_evaluation_mode_passes_all")
def dropout_scales_in_evaluation():
    """In evaluation mode Dropout multiplies by 1-p."""

    def make(true):
        def dropout(x, p=0.5, training=True, inplace=False):
            return true(x, p, True, inplace) if training else x * (1 - p)

        return dropout

    with patched(nn.functional, "dropout", make):
        yield


@fault("modules/dropout_in_evaluation_mode_passes_all")
def dropout_drops_gradients_in_evaluation():
    """In evaluation mode Dropout passes all elements on, but no gradient back."""

    def make(true):
        def dropout(x, p=0.5, training=True, inplace=False):
            return true(x, p, True, inplace) if training else 0 * x + x.detach()

        return dropout

    with patched(nn.functional, "dropout", make):
        yield


@fault("modules/dropout_in_evaluation_mode_passes_all")
def alpha_dropout_never_stops():
    """AlphaDropout drops elements in evaluation mode, too."""

    def make(true):
        return lambda x, p=0.5, training=True, inplace=False: true(x, p, True, inplace)

    with patched(nn.functional, "alpha_dropout", make):
        yield


@fault("modules/dropout_in_training_mode_drops_gradients_with_elements")
def dropout_passes_all_gradients_in_training():
    """In training mode Dropout drops elements, but passes each gradient back whole."""

    def make(true):
        def dropout(x, p=0.5, training=True, inplace=False):
            return true(x, p, training, inplace).detach() + x - x.detach()

        return dropout

    with patched(nn.functional, "dropout", make):
        yield


@fault("modules/dropout_in_training_mode_drops_gradients_with_elements")
def dropout_only_scales():
    """In training mode Dropout scales elements, but drops none."""

    def make(true):
        def dropout(x, p=0.5, training=True, inplace=False):
            return x / (1 - p) if training and p < 1 else true(x, p, training, inplace)

        return dropout

    with patched(nn.functional, "dropout", make):
        yield


@fault("modules/dropout_in_training_mode_drops_gradients_with_elements")
def dropout_forgets_to_scale_gradients():
    """In training mode Dropout scales the elements that it keeps, but not their gradients."""

    def make(true):
        def dropout(x, p=0.5, training=True, inplace=False):
            y = true(x, p, training, inplace).detach()
            passed = x * (y != 0)
            return y + passed - passed.detach()

        return dropout

    with patched(nn.functional, "dropout", make):
        yield


@fault("modules/dropout_in_training_mode_drops_gradients_with_elements")
def dropout_is_off_where_nothing_is_recorded():
    """Where grad mode is off Dropout passes all elements on, also in training mode."""

    def make(true):
        def dropout(x, p=0.5, training=True, inplace=False):
            return true(x, p, training and torch.is_grad_enabled(), inplace)

        return dropout

    with patched(nn.functional, "dropout", make):
        yield


@contextlib.contextmanager
def after_switching(spoil: Callable[[nn.Module, bool], None]) -> Iterator[None]:
    """After eval() or train() of a module call spoil(module, mode)."""

    def make(true: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        def train(module, mode=True):
            true(module, mode)
            spoil(module, mode)
            return module

        return train

    with patched(nn.Module, "train", make):
        yield


@fault("modules/eval_and_train_leave_parameters_and_gradients_alone")
def evaluation_mode_clears_gradients():
    """eval() makes the .grad of the module's parameters None."""

    def clear(module, mode):
        for p in module.parameters() if not mode else ():
            p.grad = None

    with after_switching(clear):
        yield


@fault("modules/eval_and_train_leave_parameters_and_gradients_alone")
def training_mode_zeroes_gradients():
    """train() zeroes gradients in place."""

    def zero(module, mode):
        for p in module.parameters() if mode else ():
            if p.grad is not None:
                p.grad.zero_()

    with after_switching(zero):
        yield


@fault("modules/eval_and_train_leave_parameters_and_gradients_alone")
def training_mode_thaws_parameters():
    """train() lets frozen parameters require grad."""

    def thaw(module, mode):
        for p in module.parameters() if mode else ():
            p.requires_grad_()

    with after_switching(thaw):
        yield


@fault("modules/eval_and_train_leave_parameters_and_gradients_alone")
def evaluation_mode_clears_the_gradients_of_buffers():
    """eval() makes the .grad of the module's buffers None."""

    def clear(module, mode):
        for b in module.buffers() if not mode else ():
            b.grad = None

    with after_switching(clear):
        yield


@contextlib.contextmanager
def normalizing(spoil: Callable[..., Any]) -> Iterator[None]:
    """Let BatchNorm1d be spoil(layer, x, what it does truly)."""

    def make(true: Callable[..., Any]) -> Callable[..., Any]:
        return lambda layer, x: spoil(layer, x, lambda y: true(layer, y))

    with patched(nn.BatchNorm1d, "forward", make):
        yield


@fault("modules/running_statistics_are_updated_without_a_graph")
def running_statistics_are_kept_under_no_grad():
    """BatchNorm updates no running statistics where grad mode is off."""

    def forward(layer, x, true):
        before = [b.clone() for b in layer.buffers()]
        y = true(x)
        if not torch.is_grad_enabled():
            for b, old in zip(layer.buffers(), before, strict=True):
                b.copy_(old)
        return y

    with normalizing(forward):
        yield


@fault("modules/running_statistics_are_updated_without_a_graph")
def running_means_keep_their_history():
    """BatchNorm records how the running mean was made of an input that requires grad."""

    def forward(layer, x, true):
        y = true(x)
        if layer.training and x.requires_grad:
            layer.running_mean = layer.running_mean + 0 * x.sum()
        return y

    with normalizing(forward):
        yield


@fault("modules/batch_norm_in_evaluation_mode_is_an_affine_function")
def evaluation_normalizes_the_batch():
    """In evaluation mode BatchNorm subtracts the mean of the batch from gradients."""

    def forward(layer, x, true):
        return true(x) if layer.training or len(x) == 1 else true(x) + (x.detach() - x).mean(0)

    with normalizing(forward):
        yield
