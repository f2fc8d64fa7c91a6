"""Faults in modules: in what they hold, in their settings, and in the gradients of their layers."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from . import fault, leaves_below, patched, reading

FREEZING = (
    "modules/requires_grad_freezes_a_whole_module",
    "modules/freezing_a_part_leaves_the_other_gradients_exact",
)
ZEROING = (
    "modules/zero_grad_resets_the_gradients_of_all_parameters",
    "modules/zero_grad_sets_grad_to_none",
)


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


@fault("modules/parameters_goes_through_every_parameter_once", *FREEZING[:1], *ZEROING)
def parameters_of_grandchildren_are_left_out():
    """parameters() gives those of a module and of its children, but of no module further down."""

    def parameters(module, recurse=True):
        found = list(module._parameters.values())
        for child in module.children() if recurse else ():
            found += child._parameters.values()
        return iter(list({id(p): p for p in found if p is not None}.values()))

    with patched(nn.Module, "parameters", lambda _: parameters):
        yield


@fault("modules/parameters_goes_through_every_parameter_once")
def a_shared_parameter_comes_as_often_as_it_is_shared():
    """parameters() gives a parameter that two modules share twice."""

    def parameters(module, recurse=True):
        found = [p for part in (module.modules() if recurse else [module]) for p in part._parameters.values()]
        return (p for p in found if p is not None)

    with patched(nn.Module, "parameters", lambda _: parameters):
        yield


@fault("modules/parameters_goes_through_every_parameter_once", *FREEZING[:1])
def frozen_parameters_are_left_out():
    """parameters() gives those only that require grad."""

    def make(true):
        return lambda module, recurse=True: (p for p in true(module, recurse) if p.requires_grad)

    with patched(nn.Module, "parameters", make):
        yield


@fault("modules/parameters_goes_through_every_parameter_once")
def names_of_parameters_lack_their_path():
    """named_parameters() gives the last part of a name only."""

    def make(true):
        return lambda *args, **kwargs: ((n.rpartition(".")[2], p) for n, p in true(*args, **kwargs))

    with patched(nn.Module, "named_parameters", make):
        yield


@fault("modules/parameters_goes_through_every_parameter_once")
def recurse_is_ignored():
    """parameters(recurse=False) gives the parameters of children, too."""
    with patched(nn.Module, "parameters", lambda true: lambda module, recurse=True: true(module, True)):
        yield


@fault("modules/parameters_come_in_a_fixed_order")
def parameters_come_last_first():
    """parameters() begins at the end."""

    def make(true):
        return lambda module, recurse=True: iter(list(true(module, recurse))[::-1])

    with patched(nn.Module, "parameters", make):
        yield


@fault("modules/parameters_come_in_a_fixed_order")
def children_come_before_the_module():
    """parameters() gives those of children before the module's own."""

    def parameters(module, recurse=True):
        found = {id(p): p for child in module.children() if recurse for p in parameters(child)}
        found |= {id(p): p for p in module._parameters.values() if p is not None}
        return iter(found.values())

    with patched(nn.Module, "parameters", lambda _: parameters):
        yield


@contextlib.contextmanager
def assigning(spoil: Callable[[nn.Module, str, Any], bool]) -> Iterator[None]:
    """Let assigning an attribute to a module do what spoil(module, name, value) does, if it gives True."""

    def make(true: Callable[..., None]) -> Callable[..., None]:
        return lambda module, name, value: None if spoil(module, name, value) else true(module, name, value)

    with patched(nn.Module, "__setattr__", make):
        yield


@fault("modules/assigning_a_parameter_registers_it")
def leaves_are_registered_like_parameters():
    """A leaf that requires grad is registered as a parameter when it is assigned."""

    def register(module, name, value):
        if isinstance(value, torch.Tensor) and value.is_leaf and value.requires_grad:
            module._parameters[name] = value
            return True
        return False

    with assigning(register):
        yield


@fault("modules/assigning_a_parameter_registers_it")
def parameters_are_not_registered_under_no_grad():
    """A Parameter assigned while grad mode is off is a mere attribute."""

    def forget(module, name, value):
        if isinstance(value, nn.Parameter) and not torch.is_grad_enabled():
            object.__setattr__(module, name, value)
            return True
        return False

    with assigning(forget):
        yield


@fault("modules/assigning_a_parameter_registers_it")
def frozen_parameters_are_not_registered():
    """A Parameter that doesn't require grad is a mere attribute."""

    def forget(module, name, value):
        if isinstance(value, nn.Parameter) and not value.requires_grad:
            object.__setattr__(module, name, value)
            return True
        return False

    with assigning(forget):
        yield


@fault("modules/parameters_of_a_new_layer_are_leaves_that_require_grad")
def parameters_made_under_no_grad_do_not_require_grad():
    """A Parameter made while grad mode is off doesn't require grad."""

    def make(true):
        def new(cls, data=None, requires_grad=True):
            return true(cls, data, requires_grad and torch.is_grad_enabled())

        return new

    with patched(nn.Parameter, "__new__", make):
        yield


@fault("modules/parameters_of_a_new_layer_are_leaves_that_require_grad")
def one_dimensional_parameters_do_not_require_grad():
    """A new layer's parameters of one dimension, such as biases, don't require grad."""

    def make(true):
        def new(cls, data=None, requires_grad=True):
            return true(cls, data, requires_grad and (data is None or data.dim() != 1))

        return new

    with patched(nn.Parameter, "__new__", make):
        yield


@fault(
    "modules/parameters_of_a_new_layer_are_leaves_that_require_grad",
    "modules/eval_and_train_switch_a_module_and_all_in_it",
)
def new_modules_are_in_evaluation_mode():
    """A new module is in evaluation mode."""

    def make(true):
        def init(module, *args, **kwargs):
            true(module, *args, **kwargs)
            object.__setattr__(module, "training", False)

        return init

    with patched(nn.Module, "__init__", make):
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


@fault("modules/every_use_of_a_parameter_counts", *ZEROING)
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


@fault(*FREEZING)
def freezing_leaves_children_out():
    """requires_grad_() of a module sets the flags of its own parameters only."""

    def requires_grad(module, flag=True):
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(flag)
        return module

    with patched(nn.Module, "requires_grad_", lambda _: requires_grad):
        yield


@fault("modules/requires_grad_freezes_a_whole_module")
def freezing_forgets_the_last_parameter():
    """requires_grad_() of a module leaves out the last of several parameters."""

    def requires_grad(module, flag=True):
        parameters = list(module.parameters())
        for parameter in parameters[:-1] if len(parameters) > 1 else parameters:
            parameter.requires_grad_(flag)
        return module

    with patched(nn.Module, "requires_grad_", lambda _: requires_grad):
        yield


@fault("modules/requires_grad_freezes_a_whole_module")
def freezing_clears_gradients():
    """requires_grad_() of a module makes its gradients None."""

    def make(true):
        def requires_grad(module, flag=True):
            for parameter in module.parameters():
                parameter.grad = None
            return true(module, flag)

        return requires_grad

    with patched(nn.Module, "requires_grad_", make):
        yield


@fault("modules/requires_grad_freezes_a_whole_module")
def thawing_clears_gradients():
    """requires_grad_(True) of a module makes the gradients of parameters that were frozen None."""

    def make(true):
        def requires_grad(module, flag=True):
            for parameter in module.parameters():
                if flag and not parameter.requires_grad:
                    parameter.grad = None
            return true(module, flag)

        return requires_grad

    with patched(nn.Module, "requires_grad_", make):
        yield


@fault("modules/requires_grad_freezes_a_whole_module")
def freezing_cannot_be_undone():
    """requires_grad_() of a module freezes it whatever flag it is given."""
    with patched(nn.Module, "requires_grad_", lambda true: lambda module, flag=True: true(module, False)):
        yield


@fault("modules/a_frozen_module_records_only_what_its_input_asks_for")
def a_frozen_module_cuts_off_its_input():
    """A module all of whose parameters are frozen detaches what it is given."""

    def cut(module, x, true):
        parameters = list(module.parameters())
        return true(x.detach()) if parameters and not any(p.requires_grad for p in parameters) else true(x)

    with calling(cut):
        yield


@fault(*FREEZING)
def a_frozen_weight_stops_the_gradient_of_the_input():
    """A Linear layer whose weight is frozen passes zeros back to its input."""

    def make(true):
        def linear(x, weight, bias=None):
            return true(x, weight, bias) if weight.requires_grad else true(x.detach(), weight, bias) + 0 * x.sum()

        return linear

    with patched(nn.functional, "linear", make):
        yield


@fault("modules/freezing_a_part_leaves_the_other_gradients_exact")
def freezing_the_weight_freezes_the_bias():
    """A Linear layer whose weight is frozen gives its bias no gradient."""

    def make(true):
        def linear(x, weight, bias=None):
            return true(x, weight, bias if bias is None or weight.requires_grad else bias.detach())

        return linear

    with patched(nn.functional, "linear", make):
        yield


@fault("modules/freezing_a_part_leaves_the_other_gradients_exact")
def freezing_one_parameter_freezes_its_module():
    """A module one of whose own parameters is frozen records nothing for the others."""

    def make(true):
        def linear(x, weight, bias=None):
            if bias is not None and not bias.requires_grad:
                weight = weight.detach()
            return true(x, weight, bias)

        return linear

    with patched(nn.functional, "linear", make):
        yield


@fault("modules/a_parameter_is_learned_if_it_requires_grad_in_both_passes")
def freezing_after_the_forward_comes_too_late():
    """Backward fills the .grad of every leaf in the graph, whether it still requires grad or not."""

    def make(true):
        def backward(tensors, *args, **kwargs):
            frozen = [leaf for leaf in leaves_below(tensors) if not leaf.requires_grad]
            for leaf in frozen:
                leaf.requires_grad_(True)
            true(tensors, *args, **kwargs)
            for leaf in frozen:
                leaf.requires_grad_(False)

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("modules/a_parameter_is_learned_if_it_requires_grad_in_both_passes")
def unfreezing_after_the_forward_gives_zeros():
    """A two-dimensional parameter that requires grad and isn't in the graph has zeros for a gradient."""

    def zeros(tensor, grad):
        if grad is None and isinstance(tensor, nn.Parameter) and tensor.requires_grad and tensor.dim() == 2:
            return torch.zeros_like(tensor).detach()
        return grad

    with reading("grad", zeros):
        yield


@fault("modules/a_frozen_module_records_only_what_its_input_asks_for")
def outputs_of_modules_require_grad():
    """What a module gives in grad mode requires grad, whether anything below it does or not."""

    def require(module, x, true):
        y = true(x)
        return y.detach().requires_grad_() if torch.is_grad_enabled() and not y.requires_grad else y

    with calling(require):
        yield


@fault("modules/a_frozen_module_records_only_what_its_input_asks_for")
def frozen_modules_free_themselves_in_training():
    """A module in training mode that is called on a constant makes its parameters require grad."""

    def free(module, x, true):
        if module.training and not x.requires_grad:
            for parameter in module.parameters():
                parameter.requires_grad_(True)
        return true(x)

    with calling(free):
        yield


@contextlib.contextmanager
def zeroing(spoil: Callable[..., None]) -> Iterator[None]:
    """Let zero_grad() do spoil(module, set_to_none, what it does truly)."""

    def make(true: Callable[..., None]) -> Callable[..., None]:
        return lambda module, set_to_none=True: spoil(
            module, set_to_none, lambda part, flag: true(part, set_to_none=flag)
        )

    with patched(nn.Module, "zero_grad", make):
        yield


@fault("modules/zero_grad_resets_the_gradients_of_all_parameters")
def zero_grad_leaves_frozen_parameters_alone():
    """zero_grad() resets the gradients of those parameters only that require grad."""

    def spoil(module, set_to_none, true):
        kept = [(p, p.grad.clone(), p.grad) for p in module.parameters() if not p.requires_grad and p.grad is not None]
        true(module, set_to_none)
        for parameter, values, grad in kept:
            parameter.grad = grad.copy_(values)

    with zeroing(spoil):
        yield


@fault("modules/zero_grad_resets_the_gradients_of_all_parameters")
def zero_grad_thaws_parameters():
    """zero_grad() lets every parameter require grad again."""

    def spoil(module, set_to_none, true):
        true(module, set_to_none)
        for parameter in module.parameters():
            parameter.requires_grad_()

    with zeroing(spoil):
        yield


@fault("modules/zero_grad_resets_the_gradients_of_all_parameters")
def zero_grad_does_not_zero_in_place():
    """zero_grad(set_to_none=False) puts new tensors into .grad."""

    def spoil(module, set_to_none, true):
        true(module, set_to_none)
        for parameter in module.parameters():
            parameter.grad = None if parameter.grad is None else parameter.grad.clone()

    with zeroing(spoil):
        yield


@fault("modules/zero_grad_resets_the_gradients_of_all_parameters")
def zero_grad_fills_in_missing_gradients():
    """zero_grad(set_to_none=False) makes zeros where .grad is None."""

    def spoil(module, set_to_none, true):
        true(module, set_to_none)
        for parameter in () if set_to_none else module.parameters():
            if parameter.grad is None and parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter).detach()

    with zeroing(spoil):
        yield


@fault("modules/zero_grad_resets_the_gradients_of_all_parameters", "modules/zero_grad_sets_grad_to_none")
def zero_grad_always_zeroes():
    """zero_grad() fills gradients with zeros whatever set_to_none says."""
    with zeroing(lambda module, set_to_none, true: true(module, False)):
        yield


@fault(*ZEROING, "modules/zero_grad_fills_grad_with_zeros")
def zero_grad_resets_the_first_parameter_only():
    """zero_grad() resets the gradient of the first parameter only."""

    def spoil(module, set_to_none, true):
        rest = [(p, p.grad, None if p.grad is None else p.grad.clone()) for p in list(module.parameters())[1:]]
        true(module, set_to_none)
        for parameter, grad, values in rest:
            parameter.grad = None if grad is None else grad.copy_(values)

    with zeroing(spoil):
        yield


@fault("modules/zero_grad_sets_grad_to_none", "modules/zero_grad_fills_grad_with_zeros")
def zero_grad_does_nothing():
    """zero_grad() leaves gradients as they are."""
    with zeroing(lambda module, set_to_none, true: None):
        yield


@fault("modules/zeroed_gradients_have_no_history")
def zero_grad_keeps_the_history():
    """zero_grad(set_to_none=False) zeroes gradients without detaching them."""

    def spoil(module, set_to_none, true):
        for parameter in module.parameters():
            if parameter.grad is not None and not set_to_none:
                parameter.grad.mul_(0)
            elif set_to_none:
                parameter.grad = None

    with zeroing(spoil):
        yield
