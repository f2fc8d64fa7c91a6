"""What backward learns: modules frozen as a whole or in part, and gradients that are reset."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import claim, raises, same
from .kit.modules import networks


@claim(
    cites=[
        "article/frozen-module-still-passes-input-grad",
        "article/frozen-weight-grad-none",
        "torch_nn/requires-grad-sets-the-parameters-flags",
        "torch_nn/module-requires-grad-returns-the-module",
        "autograd_mechanics/module-requires-grad-takes-all-parameters",
    ],
    formerly=["modules/requires_grad_freezes_a_whole_module"],
)
@given(net=networks(), earlier=st.one_of(st.none(), st.integers(-3, 3)), again=st.sampled_from(("()", "(True)")))
def spec_requires_grad_freezes_a_whole_module(world, net, earlier, again):
    """requires_grad_(False) freezes every parameter of a module and of the modules in it: backward leaves
    their .grad, None or not, as it was, but still gives the input its gradient. requires_grad_() undoes it."""
    module, parameters, _ = net.build(world)
    x = world.leaf(net.input)
    before = {name: None if earlier is None else torch.full_like(p, earlier) for name, p in parameters.items()}
    for name, parameter in parameters.items():
        parameter.grad = None if earlier is None else before[name].clone()

    same(module.requires_grad_(False) is module, True, why="it returns the module")
    same({parameter.requires_grad for parameter in parameters.values()}, {False}, why="all are frozen")
    module(x).backward(world.constant(net.cotangent))

    expected = net.gradients(world)
    same(x.grad, expected["input"], why="a frozen module is differentiated by its input all the same")
    for name, parameter in parameters.items():
        same(parameter.grad, before[name], why=f"{name} is frozen")

    module.requires_grad_() if again == "()" else module.requires_grad_(True)
    same({parameter.requires_grad for parameter in parameters.values()}, {True}, why="all are free again")
    module(x).backward(world.constant(net.cotangent))
    same(x.grad, 2 * expected["input"], why="the second backward adds to the first")
    for name, parameter in parameters.items():
        terms = [term for term in (before[name], expected[name]) if term is not None]
        same(parameter.grad, sum(terms) if terms else None, why=f"{name} is free again, and .grad was kept")


@claim(
    cites=[
        "autograd_mechanics/freezing-a-part-of-a-model",
        "autograd_mechanics/backward-fills-leaves-that-require-grad-only",
        "torch_nn/requires-grad-sets-the-parameters-flags",
    ],
    formerly=["modules/freezing_a_part_leaves_the_other_gradients_exact"],
)
@given(net=networks(), part=st.booleans(), choice=st.integers(0, 7), constant=st.booleans())
def spec_freezing_a_part_leaves_the_other_gradients_exact(world, net, part, choice, constant):
    """With one module inside frozen, or a single parameter, the other parameters and the input get the very
    gradients that they get otherwise; the frozen ones get none."""
    module, parameters, parts = net.build(world)
    x = world.constant(net.input) if constant else world.leaf(net.input)
    inside = list(parts)[1:]  # empty for a single layer
    if part and inside:
        path = inside[choice % len(inside)]
        parts[path].requires_grad_(False)
        frozen = [name for name in net.below[path] if name in parameters]
    else:
        frozen = [list(parameters)[choice % len(parameters)]]
        parameters[frozen[0]].requires_grad_(False)
    expected = net.gradients(world)
    learned = {name for name in parameters if name not in frozen and expected[name] is not None}

    y = module(x)
    same(y.requires_grad, bool(learned) or not constant, why=f"{sorted(learned)} can be learned")
    if y.requires_grad:
        y.backward(world.constant(net.cotangent))

    same(x.grad, None if constant else expected["input"], why="freezing parameters is no matter of the input")
    for name, parameter in parameters.items():
        same(parameter.requires_grad, name not in frozen, why=f"frozen are {frozen}")
        same(parameter.grad, expected[name] if name in learned else None, why=f"frozen are {frozen}")


@claim(
    cites=[
        "autograd_mechanics/backward-fills-leaves-that-require-grad-only",
        "autograd_mechanics/frozen-layers-are-not-tracked",
    ],
    formerly=["modules/a_parameter_is_learned_if_it_requires_grad_in_both_passes"],
)
@given(net=networks(), in_forward=st.integers(0, 255), in_backward=st.integers(0, 255))
def spec_a_parameter_is_learned_if_it_requires_grad_in_both_passes(world, net, in_forward, in_backward):
    """A parameter gets a gradient only if it requires grad in the forward pass and still does in the backward
    pass: freezing it in between withholds the gradient, and unfreezing it in between comes too late."""
    module, parameters, _ = net.build(world)
    x = world.leaf(net.input)

    for number, parameter in enumerate(parameters.values()):
        parameter.requires_grad_(bool(in_forward >> number & 1))
    y = module(x)
    for number, parameter in enumerate(parameters.values()):
        parameter.requires_grad_(bool(in_backward >> number & 1))
    y.backward(world.constant(net.cotangent))

    expected = net.gradients(world)
    same(x.grad, expected["input"], why="the input required grad all the time")
    for number, (name, parameter) in enumerate(parameters.items()):
        learned = in_forward & in_backward & 1 << number
        same(parameter.grad, expected[name] if learned else None, why=f"{name} needs to require grad both times")


@claim(
    cites=[
        "article/computed-are-non-leaves",
        "autograd_mechanics/frozen-layers-are-not-tracked",
    ],
    formerly=["modules/a_frozen_module_records_only_what_its_input_asks_for"],
)
@given(net=networks(), training=st.booleans())
def spec_a_frozen_module_records_only_what_its_input_asks_for(world, net, training):
    """What a frozen module makes of an input that requires grad is not a leaf; what it makes of a constant
    is a leaf without a graph, and backward from there raises an error."""
    module, _, _ = net.build(world)
    module.requires_grad_(False).train(training)

    y = module(world.leaf(net.input))
    same((y.requires_grad, y.is_leaf, y.grad_fn is None), (True, False, False), why="the input requires grad")

    y = module(world.constant(net.input))
    same(y, world.constant(net.output), why="freezing doesn't change what is computed")
    same((y.requires_grad, y.is_leaf, y.grad_fn), (False, True, None), why="nothing here requires grad")
    with raises(RuntimeError, "does not require grad", why="there is no graph"):
        y.backward(world.constant(net.cotangent))


@claim(
    cites=["torch_nn/zero-grad-resets-all-parameters", "torch_nn/set-to-none-is-told-to-zero-grad"],
    formerly=["modules/zero_grad_resets_the_gradients_of_all_parameters"],
)
@given(net=networks(), set_to_none=st.booleans(), frozen=st.integers(0, 255))
def spec_zero_grad_resets_the_gradients_of_all_parameters(world, net, set_to_none, frozen):
    """zero_grad(set_to_none=True) makes the .grad of every parameter None, of frozen ones, too;
    zero_grad(set_to_none=False) fills the tensors with zeros in place and leaves None as it is. The input
    keeps its gradient, frozen parameters stay frozen, and the next backward starts anew."""
    module, parameters, _ = net.build(world)
    x, cotangent = world.leaf(net.input), world.constant(net.cotangent)
    module(x).backward(cotangent)
    before = {name: parameter.grad for name, parameter in parameters.items()}
    for number, parameter in enumerate(parameters.values()):
        parameter.requires_grad_(not frozen >> number & 1)

    module.zero_grad(set_to_none=set_to_none)
    for number, (name, parameter) in enumerate(parameters.items()):
        same(parameter.requires_grad, not frozen >> number & 1, why=f"only the gradient of {name} was reset")
        if set_to_none or before[name] is None:
            same(parameter.grad, None, why=f"the gradient of {name} was reset, or there was none")
        else:
            same(parameter.grad is before[name], True, why=f"the gradient of {name} is zeroed in place")
            same(parameter.grad, torch.zeros_like(parameter), why=f"the gradient of {name} was reset")
    expected = net.gradients(world)
    same(x.grad, expected["input"], why="the input is no parameter")

    module.requires_grad_(True)
    module(x).backward(cotangent)
    for name, parameter in parameters.items():
        same(parameter.grad, expected[name], why=f"nothing is left of the first gradient of {name}")


@claim(
    cites=["torch_nn/zero-grad-resets-all-parameters", "torch_nn/zero-grad-sets-none-by-default"],
    since="2.0",
    formerly=["modules/zero_grad_sets_grad_to_none"],
)
@given(net=networks())
def spec_zero_grad_sets_grad_to_none(world, net):
    """zero_grad() makes the .grad of every parameter None."""
    module, parameters, _ = net.build(world)
    module(world.constant(net.input)).backward(world.constant(net.cotangent))

    same(module.zero_grad(), None, why="it returns nothing")
    for name, parameter in parameters.items():
        same(parameter.grad, None, why=f"the gradient of {name} was reset")


@claim(
    cites=["torch_nn/zero-grad-resets-all-parameters", "torch_nn/zero-grad-sets-none-by-default"],
    until="2.0",
    formerly=["modules/zero_grad_fills_grad_with_zeros"],
)
@given(net=networks())
def spec_zero_grad_fills_grad_with_zeros(world, net):
    """zero_grad() fills the .grad of every parameter with zeros in place; None stays None."""
    module, parameters, _ = net.build(world)
    module(world.constant(net.input)).backward(world.constant(net.cotangent))
    before = {name: parameter.grad for name, parameter in parameters.items()}

    module.zero_grad()
    for name, parameter in parameters.items():
        same(parameter.grad is before[name], True, why=f"the gradient of {name} is zeroed in place")
        if parameter.grad is not None:
            same(parameter.grad, torch.zeros_like(parameter), why=f"the gradient of {name} was reset")


@claim(observed=True, formerly=["modules/zeroed_gradients_have_no_history"])
@given(net=networks())
def spec_zeroed_gradients_have_no_history(world, net):
    """zero_grad(set_to_none=False) cuts off the history that backward(create_graph=True) gave a .grad, so that
    it is a leaf that doesn't require grad."""
    module, parameters, _ = net.build(world)
    y = module(world.constant(net.input))
    (y * y).backward(world.constant(net.cotangent), create_graph=True)

    module.zero_grad(set_to_none=False)
    for name, parameter in parameters.items():
        if parameter.grad is not None:
            found = parameter.grad.is_leaf, parameter.grad.requires_grad
            same(found, (True, False), why=f"the gradient of {name} was zeroed")
            same(parameter.grad, torch.zeros_like(parameter), why=f"the gradient of {name} was zeroed")
        parameter.grad = None  # don't keep the graph that refers to the parameter
