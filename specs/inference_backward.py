"""Backward in inference mode: what becomes of gradients, derivatives and histories there."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import SHAPES, WRITABLE, claim, graphs, raises, same, values
from .kit.modes import MODES, made_inside

ANY_MODE = st.sampled_from(list(MODES))

# Derivatives of sum(x*x) by way of other interfaces than backward.
FUNCTIONAL = {
    "torch.autograd.functional.jacobian": lambda f, x: torch.autograd.functional.jacobian(f, x),
    "torch.autograd.functional.vjp": lambda f, x: torch.autograd.functional.vjp(f, x)[1],
    "torch.autograd.functional.jvp": lambda f, x: torch.autograd.functional.jvp(f, x, torch.ones_like(x))[1],
    "torch.autograd.functional.hessian": lambda f, x: torch.autograd.functional.hessian(f, x),
    "torch.autograd.functional.vhp": lambda f, x: torch.autograd.functional.vhp(f, x, torch.ones_like(x))[1],
}
TRANSFORMS = {
    "torch.func.grad": lambda f, x: torch.func.grad(f)(x),
    "torch.func.vjp": lambda f, x: torch.func.vjp(f, x)[1](torch.ones_like(f(x)))[0],
    "torch.func.jacrev": lambda f, x: torch.func.jacrev(f)(x),
    "torch.func.grad_and_value": lambda f, x: torch.func.grad_and_value(f)(x)[0],
    "torch.func.vmap of grad": lambda f, x: torch.func.vmap(torch.func.grad(f))(x.unsqueeze(0))[0],
}

# Views of z, and the gradient by z of three times the sum of the view's real part.
COMPLEX_VIEWS = {
    "z.real": (lambda z: z.real, 3),
    "z.imag": (lambda z: z.imag, 3j),
    "torch.view_as_real(z)": (lambda z: torch.view_as_real(z), 3 + 3j),
    "z.conj()": (lambda z: z.conj(), 3),
}


@claim(observed=True)
@given(graph=graphs(), by_grad=st.booleans(), retain=st.booleans(), inner=ANY_MODE)
def spec_backward_inside_gives_inference_tensors(world, graph, by_grad, retain, inner):
    """Inside inference mode a graph that was recorded before can be differentiated as ever, by backward and
    by torch.autograd.grad; but the gradients that are made there are inference tensors."""
    tensors = graph.build(world)
    leaves = [tensors[name] for name in graph.leaves]
    expected = graph.gradients(world)
    mode, _ = MODES[inner]

    with torch.inference_mode(), mode():
        cotangent = world.constant(graph.cotangent)
        if by_grad:
            found = torch.autograd.grad(tensors[graph.root], leaves, cotangent, allow_unused=True, retain_graph=retain)
        else:
            tensors[graph.root].backward(cotangent, retain_graph=retain)
            found = [leaf.grad for leaf in leaves]

    for name, gradient in zip(graph.leaves, found):
        same(gradient, expected[name], why=f"the chain rule gives the gradient by {name}")
        if gradient is not None:
            same((gradient.is_inference(), gradient.requires_grad), (True, False), why="it was made inside")


@claim(observed=True, cites=["autograd_mechanics/all-is-allowed-inside"])
@given(v=values(), by_grad=st.booleans(), inner=ANY_MODE)
def spec_create_graph_records_nothing_inside(world, v, by_grad, inner):
    """Inside inference mode a backward with create_graph=True records nothing, unlike one under no_grad: the
    gradient is right, but it can't be differentiated."""
    x = world.leaf(v)
    y = (x * x * x).sum()
    mode, _ = MODES[inner]

    with torch.inference_mode(), mode():
        if by_grad:
            (gradient,) = torch.autograd.grad(y, x, create_graph=True)
        else:
            y.backward(create_graph=True)
            gradient, x.grad = x.grad, None

    same(gradient, 3 * x.detach() * x.detach(), why="the gradient of sum(x*x*x)")
    same((gradient.requires_grad, gradient.grad_fn, gradient.is_inference()), (False, None, True), why="made inside")
    with raises(RuntimeError, "does not require grad", why="there is no graph of the gradient"):
        torch.autograd.grad(gradient.sum(), x)


@claim(observed=True)
@given(v=values(layouts=WRITABLE), first=st.booleans(), passes=st.integers(1, 3))
def spec_a_grad_made_inside_takes_no_more_gradients_outside(world, v, first, passes):
    """A backward inside inference mode adds to a .grad that was made outside, which stays a normal tensor. A
    .grad that was made inside can be added to inside only: a backward outside raises an error."""
    x = world.leaf(v)
    if first:
        (x * 3).sum().backward()
    before = x.grad

    for _ in range(passes):
        y = (x * 3).sum()
        with torch.inference_mode():
            y.backward()

    total = 3 * (passes + first)
    same(x.grad, torch.full_like(x, total), why=f"{passes} backwards were run inside")
    same(x.grad.is_inference(), not first, why="a .grad is what it was made")
    if first:
        same(x.grad is before, True, why="it is added to in place")
        (x * 3).sum().backward()
        same(x.grad, torch.full_like(x, total + 3), why="it is a normal tensor")
    else:
        with raises(RuntimeError, "Inplace update to inference tensor outside InferenceMode", why="made inside"):
            (x * 3).sum().backward()
        x.grad = None
        (x * 3).sum().backward()
        same(x.grad, torch.full_like(x, 3), why="x itself is a normal tensor")


@claim(observed=True, cites=["autograd_mechanics/all-is-allowed-inside"])
@given(v=values(shapes=SHAPES[1:9], layouts=WRITABLE), way=st.sampled_from(list(FUNCTIONAL)), strict=st.booleans())
def spec_functional_derivatives_inside_are_silently_zero(world, v, way, strict):
    """torch.autograd.functional computes zeros, without an error, where it is called inside inference mode;
    its derivatives under no_grad are right."""
    x = world.constant(v)

    def square(x):
        return (x * x).sum()

    with torch.no_grad():
        right = FUNCTIONAL[way](square, x)
    with torch.inference_mode():
        found = FUNCTIONAL[way](square, x)

    expected = {
        "torch.autograd.functional.jacobian": 2 * x,
        "torch.autograd.functional.vjp": 2 * x,
        "torch.autograd.functional.jvp": (2 * x).sum(),
        "torch.autograd.functional.hessian": 2 * torch.eye(x.numel()).to(x).reshape(x.shape * 2),
        "torch.autograd.functional.vhp": torch.full_like(x, 2),
    }[way]
    same(right, expected, why=f"{way} of sum(x*x) under no_grad")
    same(found, torch.zeros_like(expected), why=f"{way} of sum(x*x) inside inference mode")


@claim(observed=True, cites=["autograd_mechanics/all-is-allowed-inside"], since="2.0", until="2.12")
@given(v=values(shapes=SHAPES[1:9]), way=st.sampled_from(list(TRANSFORMS)), made=st.booleans())
def spec_transforms_inside_are_silently_zero(world, v, way, made):
    """The transforms of torch.func that compute reverse mode derivatives give zeros, without an error, where
    they are called inside inference mode."""
    with torch.inference_mode(made):
        x = world.constant(v)

    with torch.inference_mode():
        found = TRANSFORMS[way](lambda x: (x * x).sum(), x)

    same(found, torch.zeros_like(x), why=f"{way} of sum(x*x) inside inference mode")


@claim(observed=True, since="2.13")
@given(v=values(shapes=SHAPES[1:9]), way=st.sampled_from(list(TRANSFORMS)), made=st.booleans())
def spec_transforms_compute_derivatives_inside(world, v, way, made):
    """The transforms of torch.func compute the right derivatives inside inference mode, too."""
    with torch.inference_mode(made):
        x = world.constant(v)

    with torch.inference_mode():
        found = TRANSFORMS[way](lambda x: (x * x).sum(), x)

    same(found, 2 * world.constant(v), why=f"{way} of sum(x*x) inside inference mode")


@claim(observed=True)
@given(v=values(layouts=WRITABLE), name=st.sampled_from(["SGD", "Adam", "Adagrad"]), outside=st.booleans())
def spec_optimizer_state_made_inside_is_of_no_use_outside(world, v, name, outside):
    """An optimizer's step inside inference mode updates the parameters, which stay normal ones. But state
    that it makes there consists of inference tensors: the next step outside raises an error."""
    p = torch.nn.Parameter(world.constant(v))
    optimizer = {
        "SGD": lambda: torch.optim.SGD([p], lr=1.0, momentum=0.5),
        "Adam": lambda: torch.optim.Adam([p], lr=1.0),
        "Adagrad": lambda: torch.optim.Adagrad([p], lr=1.0),  # makes its state before the first step
    }[name]()
    if outside:
        (p * 3).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    old, version = p.detach().clone(), p._version

    (p * 3).sum().backward()
    with torch.inference_mode():
        optimizer.step()

    same(p._version > version, True, why="the parameter was written")
    same(torch.equal(p, old), p.numel() == 0, why="the parameter was updated")
    same((p.is_inference(), p.requires_grad, p.is_leaf, p.grad_fn), (False, True, True, None), why="it is the same")
    if outside or name == "Adagrad":
        optimizer.step()
    else:
        with raises(RuntimeError, "Inplace update to inference tensor", why="the state was made inside"):
            optimizer.step()


@claim(observed=True, needs=["complex64"])
@given(
    shape=st.sampled_from([(), (1,), (2,), (2, 3)]),
    view=st.sampled_from(list(COMPLEX_VIEWS)),
    computed=st.booleans(),
    through_view=st.booleans(),
    asked=st.booleans(),
)
def spec_views_of_real_parts_can_lose_their_history_inside(world, shape, view, computed, through_view, asked):
    """Once a complex tensor was written in place inside inference mode, an internal assertion fails there
    when is_leaf of a view of its parts, taken before, is asked; from then on the view has no history and
    passes on no gradient. If it isn't asked inside, the view is whole."""
    x = torch.ones(shape, dtype=torch.complex64, device=world.device, requires_grad=True)
    z = x * 1 if computed else x
    look, factor = COMPLEX_VIEWS[view]
    seen = look(z)

    with torch.inference_mode():
        (seen if through_view else z).mul_(2)
        if asked:
            with raises(RuntimeError, "INTERNAL ASSERT FAILED", why=f"{view} was taken before"):
                print(seen.is_leaf)

    same(seen.requires_grad, True, why=f"{view} of a tensor that requires grad")
    same((seen.is_leaf, seen.grad_fn is None), (asked, asked), why=f"it was asked inside: {asked}")
    (seen.real * 3).sum().backward()
    same(x.grad, None if asked else torch.full_like(x, factor), why=f"it was asked inside: {asked}")


@claim(cites=["autograd_mechanics/inference-tensors-usable-if-not-recorded"])
@given(graph=graphs(anywhere=3), by_grad=st.booleans())
def spec_a_cotangent_can_be_an_inference_tensor(world, graph, by_grad):
    """The gradients passed to backward and torch.autograd.grad may be inference tensors; those that come are
    the right ones."""
    tensors = graph.build(world)
    roots = [tensors[name] for name in graph.cotangents]
    leaves = [tensors[name] for name in graph.leaves]
    with torch.inference_mode():
        cotangents = [world.constant(v) for v in graph.cotangents.values()]
    expected = graph.gradients(world)

    if by_grad:
        found = torch.autograd.grad(roots, leaves, cotangents, allow_unused=True)
    else:
        torch.autograd.backward(roots, cotangents)
        found = [leaf.grad for leaf in leaves]

    for name, gradient in zip(graph.leaves, found):
        same(gradient, expected[name], why=f"the gradient by {name}")
    for t, v in zip(cotangents, graph.cotangents.values()):
        same([t, t.is_inference()], [world.constant(v), True], why="they were only read")


@claim(observed=True, cites=["saved_tensor_hooks/any-object-may-be-packed"], since="2.6")
@given(v=values(), where=st.sampled_from(["pack", "unpack", "both"]), passes=st.integers(1, 2))
def spec_hooks_for_saved_tensors_may_give_inference_tensors(world, v, where, passes):
    """The hooks for saved tensors may pack a saved tensor as an inference tensor, and may unpack one."""
    x = world.leaf(v)

    def pack(t):
        return made_inside(t) if where != "unpack" else t.detach()

    def unpack(t):
        return made_inside(t) if where != "pack" else t

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        y = (x * x).sum()
    for _ in range(passes):
        y.backward(retain_graph=True)

    same(x.grad, 2 * passes * x.detach(), why=f"{passes} times the gradient of sum(x*x)")


@claim(observed=True, cites=["saved_tensor_hooks/any-object-may-be-packed"], until="2.5")
@given(v=values(), unpacked=st.booleans())
def spec_hooks_for_saved_tensors_may_not_give_inference_tensors(world, v, unpacked):
    """Backward raises an error if a hook for saved tensors unpacks an inference tensor; no .grad is written."""
    x = world.leaf(v)
    pack, unpack = (lambda t: t, made_inside) if unpacked else (made_inside, lambda t: t)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        y = (x * x).sum()
    with raises(RuntimeError, "Cannot set version_counter for inference tensor", why="it was made inside"):
        y.backward()
    same(x.grad, None, why="its gradient couldn't be computed")
