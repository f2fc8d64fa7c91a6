"""Leaves and modules that are made inside inference mode."""

import copy
import io

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import SHAPES, claim, raises, same, values
from .kit.choices import some_of

# Operations on t, which inference mode made with requires_grad, that don't save it, together with something
# normal; and the gradient of the sum of the result.
TOGETHER = {
    "t * 3": (lambda t: t * 3, 3),
    "t + 1": (lambda t: t + 1, 1),
    "1 - t": (lambda t: 1 - t, -1),
    "t.clone()": (lambda t: t.clone(), 1),
    "t + one": (lambda t: t + torch.ones_like(t.detach().clone()), 1),
    "two * t": (lambda t: torch.full_like(t.detach().clone(), 2) * t, 2),
    "torch.stack([t, one])": (lambda t: torch.stack([t, torch.ones_like(t.detach().clone())]), 1),
    "zero.add_(t, alpha=5)": (lambda t: torch.zeros_like(t.detach().clone()).add_(t, alpha=5), 5),
    "t.to(torch.complex64).real": (lambda t: t.to(torch.complex64).real, 1),
    "torch.where(one > 0, t, one)": (
        lambda t: torch.where(t.detach().clone() < 99, t, torch.ones((), device=t.device)),
        1,
    ),
}

# Operations on t and nothing else.
ALONE = {
    "t * t": lambda t: t * t,
    "t + t": lambda t: t + t,
    "-t": lambda t: -t,
    "t.sum()": lambda t: t.sum(),
    "t.relu()": lambda t: t.relu(),
    "t.square()": lambda t: t.square(),
    "t**2": lambda t: t**2,
    "t.clamp(-1, 1)": lambda t: t.clamp(-1, 1),
    "torch.stack([t, t])": lambda t: torch.stack([t, t]),
    "torch.cat([t])": lambda t: torch.cat([t]),
    "torch.maximum(t, t)": lambda t: torch.maximum(t, t),
}

VIEWS = {
    "t[...]": lambda t: t[...],
    "t.unsqueeze(0)": lambda t: t.unsqueeze(0),
    "t.view_as(t)": lambda t: t.view_as(t),
    "t.unbind(0)[-1]": lambda t: t.unbind(0)[-1],
    "t.expand(2, *t.shape)": lambda t: t.expand(2, *t.shape),
    "t.detach()": lambda t: t.detach(),
}


@claim(observed=True, cites=["autograd_mechanics/tracked-if-an-input-requires-grad"], needs=["complex64"])
@given(v=values(), operations=some_of(TOGETHER, 4), parameter=st.booleans(), passes=st.integers(1, 3))
def spec_a_leaf_made_inside_is_recorded_outside_together_with_normal_tensors(world, v, operations, parameter, passes):
    """A leaf that inference mode made with requires_grad gets its gradients outside from operations that don't
    save it and in which a number or a normal tensor takes part. Its .grad is a normal tensor."""
    for operation in operations:
        with torch.inference_mode():
            leaf = torch.nn.Parameter(world.constant(v)) if parameter else world.leaf(v)
        same((leaf.is_inference(), leaf.requires_grad, leaf.is_leaf), (True, True, True), why="it was made inside")
        seen = []
        leaf.register_hook(lambda gradient: seen.append(gradient.clone()))
        function, factor = TOGETHER[operation]

        for _ in range(passes):
            y = function(leaf)
            same(y.requires_grad, True, why=f"{operation} is recorded")
            y.sum().backward()

        expected = torch.full_like(world.constant(v), factor)
        same(leaf.grad, passes * expected, why=f"{passes} backwards of the sum of {operation}")
        same((leaf.grad.is_inference(), leaf.is_inference()), (False, True), why="the .grad was made outside")
        same(seen, [expected] * passes, why="its hook runs")


@claim(observed=True, cites=["autograd_mechanics/grad-mode-is-the-default"])
@given(v=values(shapes=SHAPES[1:9]), operations=some_of(ALONE, 4), views=some_of(VIEWS, 2), parameter=st.booleans())
def spec_a_leaf_made_inside_is_not_recorded_outside_by_itself(world, v, operations, views, parameter):
    """Operations of which all operands are inference tensors are not recorded outside, without a word, though
    one of them is a leaf that requires grad. Nor are its views, which don't require grad."""
    with torch.inference_mode():
        leaf = torch.nn.Parameter(world.constant(v)) if parameter else world.leaf(v)

    for operation in operations:
        y = ALONE[operation](leaf)
        same(y, ALONE[operation](world.constant(v)), why=f"{operation} of the same values")
        same((y.requires_grad, y.grad_fn, y.is_inference()), (False, None, False), why=f"{operation} isn't recorded")
    for view in views:
        seen = VIEWS[view](leaf)
        same((seen.requires_grad, seen.grad_fn, seen.is_inference()), (False, None, True), why=view)
        w = torch.ones_like(seen.clone()).requires_grad_()
        (w + seen).sum().backward()
        same((leaf.grad, w.grad), (None, torch.ones_like(w)), why="a view passes nothing on")
    same((leaf.requires_grad, leaf.is_leaf, leaf.is_inference()), (True, True, True), why="it is what it was")


@claim(
    observed=True, cites=["autograd_mechanics/inference-tensors-are-not-for-recorded-computations"], needs=["random"]
)
@given(
    size=st.integers(1, 3),
    bias=st.booleans(),
    nested=st.booleans(),
    way=st.sampled_from(["copy.deepcopy", "torch.load", "load_state_dict"]),
)
def spec_a_module_made_inside_is_trained_by_way_of_a_copy(world, size, bias, nested, way):
    """The parameters of a module that is built inside inference mode are inference tensors for good: outside
    the module takes no input that requires grad, no state dict and no step. A copy made outside does."""

    def build():
        layer = torch.nn.Linear(size, 1, bias=bias, device=world.device)
        return torch.nn.Sequential(torch.nn.Sequential(layer)) if nested else layer

    def filled(module, number):
        return {name: torch.full_like(p, number).clone() for name, p in module.state_dict().items()}

    with torch.inference_mode():
        module = build()
    x = torch.ones(2, size, device=world.device, requires_grad=True)
    flags = [(p.is_inference(), p.requires_grad) for p in module.parameters()]
    same(flags, [(True, True)] * (1 + bias), why="its parameters were made inside")
    with raises(
        RuntimeError, "Inference tensors cannot be saved for backward", why="the gradient of x needs the weight"
    ):
        module(x)
    with raises(RuntimeError, "Inplace update to inference tensor", why="its parameters can't be written"):
        module.load_state_dict(filled(module, 2))
    with torch.no_grad():
        same(module(x).is_inference(), False, why="it can be used outside")

    if way == "copy.deepcopy":
        copied = copy.deepcopy(module)
    elif way == "torch.load":
        copied, buffer = build(), io.BytesIO()
        torch.save(module.state_dict(), buffer)
        buffer.seek(0)
        copied.load_state_dict(torch.load(buffer))
    else:
        copied = build()
        copied.load_state_dict(module.state_dict())
    for (name, p), q in zip(module.state_dict().items(), copied.parameters()):
        same([q, q.is_inference(), q.requires_grad], [p, False, True], why=f"{name} was copied")
    copied.load_state_dict(filled(copied, 2))
    copied(x).sum().backward()
    same(x.grad, torch.full_like(x, 2), why="the weights are 2")
    for q in copied.parameters():
        same(q.grad, torch.full_like(q, 2), why="two rows of ones")
        with torch.no_grad():
            q -= q.grad
        same(q, torch.zeros_like(q), why="2 less the gradient")
