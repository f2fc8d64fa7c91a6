"""Hooks of modules that run before a module is differentiated, and change the gradients by its outputs."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import NONEMPTY, claim, raises, same, values
from .kit.layers import Mix, Times


@claim(
    cites=[
        "torch_nn/full-backward-pre-hook-replaces-grad-output",
        "torch_nn/backward-hook-gets-none-for-non-tensors",
        "torch_nn/backward-hook-gets-the-gradients",
    ],
    since="2.0",
)
@given(
    v=values(shapes=NONEMPTY),
    factors=st.lists(st.sampled_from((None, 2, -1, 0, 3)), min_size=1, max_size=3),
    constant=st.booleans(),
    outputs=st.integers(1, 2),
    text=st.booleans(),
)
def spec_a_full_backward_pre_hook_replaces_the_output_gradients(world, v, factors, constant, outputs, text):
    """A full backward pre-hook gets the module and the tuple of gradients by its outputs, None for what is no tensor,
    before the module is differentiated; what it returns takes their place for the module, its parameters and hooks."""
    x = world.constant(v) if constant else world.leaf(v)
    module = Mix([[1], [2]][:outputs], x, shape=(lambda sums: (*sums, "text")) if text else tuple)
    seen, after = [], []
    module.register_full_backward_hook(lambda mod, by_input, by_output: after.append((by_input, by_output)))
    for factor in factors:

        def hook(mod, by_output, factor=factor):
            seen.append((mod is module, list(by_output)))
            return None if factor is None else tuple(None if g is None else g * factor for g in by_output)

        module.register_full_backward_pre_hook(hook)
    sum((y * (n + 1)).sum() for n, y in enumerate(module(x)[:outputs])).backward()

    total, expected = 1, []
    for factor in factors:
        by_output = [torch.full_like(x, (n + 1) * total) for n in range(outputs)] + [None] * text
        expected.append((True, by_output))
        total *= 1 if factor is None else factor
    gradient = sum((n + 1) ** 2 for n in range(outputs)) * total
    same(seen, expected, why=f"the hooks multiply by {factors}")
    same(x.grad, None if constant else torch.full_like(x, gradient), why="the module is differentiated with the last")
    if not constant:
        same(module.p.grad, x.detach().sum() * gradient, why="so are its parameters")
    last = [torch.full_like(x, (n + 1) * total) for n in range(outputs)] + [None] * text
    same([list(by_output) for _, by_output in after], [last], why="full backward hooks get what pre-hooks left")


@claim(cites=["torch_nn/full-backward-pre-hook-replaces-grad-output"], since="2.3")
@given(
    v=values(shapes=NONEMPTY),
    factors=st.lists(st.sampled_from((2, -1, 0, 3)), min_size=1, max_size=3),
    full=st.booleans(),
)
def spec_a_pre_hook_counts_where_no_input_requires_grad(world, v, factors, full):
    """What a full backward pre-hook returns is what the parameters of the module get also if no input of the module
    requires grad, like the first layer's."""
    x = world.constant(v)
    module, total = Times(2, x), 1
    if full:
        module.register_full_backward_hook(lambda mod, by_input, by_output: None)
    for factor in factors:
        module.register_full_backward_pre_hook(lambda mod, by_output, factor=factor: (by_output[0] * factor,))
        total *= factor
    module(x).sum().backward()
    same(module.p.grad, 2 * x.sum() * total, why=f"the hooks multiply by {factors}")


@claim(observed=True, cites=["torch_nn/full-backward-pre-hook-replaces-grad-output"], since="2.0", until="2.3")
@given(v=values(shapes=NONEMPTY), factor=st.sampled_from((2, -1, 0, 3)), full=st.booleans())
def spec_a_pre_hook_is_ignored_where_no_input_requires_grad(world, v, factor, full):
    """What a full backward pre-hook returns is ignored if no input of the module requires grad: its parameters get the
    gradients that they get without the hook."""
    x = world.constant(v)
    module = Times(2, x)
    if full:
        module.register_full_backward_hook(lambda mod, by_input, by_output: None)
    module.register_full_backward_pre_hook(lambda mod, by_output: (by_output[0] * factor,))
    module(x).sum().backward()
    same(module.p.grad, 2 * x.sum(), why="the first layer's parameters get their own gradients")


@claim(observed=True, cites=["torch_nn/full-backward-pre-hook-returns-a-tensor"], since="2.0")
@given(v=values(shapes=((2,), (3,), (2, 3), (3, 2, 2))), outputs=st.integers(1, 2), retain=st.booleans())
def spec_a_full_backward_pre_hook_returns_a_tuple(world, v, outputs, retain):
    """A full backward pre-hook may not return a single tensor for its single output: what it returns is taken for a
    tuple, so that a tensor with another number of rows than the module has outputs is an error."""
    x = world.leaf(v)
    outputs = 1 if x.shape[0] == outputs else outputs
    module = Mix([[1], [2]][:outputs], x)
    handle = module.register_full_backward_pre_hook(lambda mod, by_output: by_output[0] * 2)
    y = sum(each.sum() for each in module(x))
    with raises(RuntimeError, "invalid number", why=f"the tensor has {x.shape[0]} rows, the module {outputs} outputs"):
        y.backward(retain_graph=retain)
    same([x.grad, module.p.grad], [None, None], why="backward stopped at the module")
    handle.remove()
    module.register_full_backward_pre_hook(lambda mod, by_output: tuple(g * 2 for g in by_output))
    sum(each.sum() for each in module(x)).backward()
    same(x.grad, torch.full_like(x, 2 if outputs == 1 else 6), why="a tuple takes the place of the gradients")
