"""Gradients clipped, and parameters flattened into a vector and back: what torch.nn.utils does to leaves."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import claim, raises, same, values

ONE_TO_THREE = st.lists(values(), min_size=1, max_size=3)
ROWS = ("contiguous", "offset", "strided")  # what can be viewed as a vector
OF_ONE_DTYPE = st.sampled_from(("float64", "float32")).flatmap(
    lambda dtype: st.lists(values(layouts=ROWS, dtypes=(dtype,)), min_size=1, max_size=3)
)


def with_gradients(world, drawn, none):
    """Parameters of the values, whose gradients hold one number each, but those whose bit is set have none."""
    parameters = [torch.nn.Parameter(world.constant(v)) for v in drawn]
    for number, p in enumerate(parameters):
        p.grad = None if none >> number & 1 else torch.full_like(p, (2, -4, 1)[number]).detach()
    return parameters


GIVEN = {
    "list(parameters)": lambda parameters: list(parameters),
    "tuple(parameters)": lambda parameters: tuple(parameters),
    "module.parameters()": lambda parameters: torch.nn.ParameterList(parameters).parameters(),
    "parameters[0]": lambda parameters: parameters[0],
}


@claim(cites=["torch_nn/clip-grad-norm-returns-the-norm", "torch_nn/clip-grad-norm-scales-in-place"])
@given(
    drawn=ONE_TO_THREE,
    norm=st.sampled_from((1.0, "inf")),
    none=st.integers(0, 7),
    most=st.sampled_from((0.5, 0.25, 2.0, 1000.0)),
    given_as=st.sampled_from([*GIVEN]),
    recording=st.booleans(),
)
def spec_clip_grad_norm_scales_all_gradients_alike(world, drawn, norm, none, most, given_as, recording):
    """clip_grad_norm_ returns the norm of all gradients taken for one vector, without a graph; if it exceeds the
    maximum, all are multiplied in place by one factor that brings it there, or else they stay. None stays None."""
    parameters = with_gradients(world, drawn, none)
    clipped = parameters[:1] if given_as == "parameters[0]" else parameters
    before = [(p.grad, None if p.grad is None else p.grad.clone()) for p in parameters]
    numbers = [abs(float(n)) for p in clipped if p.grad is not None for n in p.grad.reshape(-1)]
    total = (sum(numbers) if norm == 1.0 else max(numbers)) if numbers else 0.0
    some = any(p.grad is not None and p.grad.numel() == 0 for p in clipped)

    if not (some and norm != 1.0):  # no element has no maximum
        with torch.set_grad_enabled(recording):
            result = torch.nn.utils.clip_grad_norm_(GIVEN[given_as](parameters), most, norm_type=norm)
        same((float(result), result.requires_grad, result.grad_fn), (total, False, None), why="that is the norm")

        factors = set()
        for p, (grad, old) in zip(parameters, before):
            same(p.grad is grad, True, why="a gradient is clipped in place, and None stays None")
            if grad is not None and any(p is q for q in clipped):
                factors.update((grad / old).reshape(-1).tolist())  # exact: the numbers are powers of two
                same(grad.requires_grad, False, why="nothing is recorded")
            elif grad is not None:
                same(grad, old, why="it wasn't among the parameters")
        if total >= most:
            same(all(0.99 * most <= f * total <= most * (1 + 1e-6) for f in factors), True, why="that is the maximum")
            same(max(factors) - min(factors) < 1e-6, True, why="all have one factor")
        else:
            same(factors <= {1.0}, True, why="the norm doesn't exceed the maximum")
        for p, v in zip(parameters, drawn):
            same([p, p._version], [world.constant(v), 0], why="gradients are clipped, not values")


@claim(cites=["torch_nn/clip-grad-norm-refuses-the-nonfinite"])
@given(
    drawn=ONE_TO_THREE,
    position=st.integers(0, 2),
    bad=st.sampled_from(("nan", "inf", "-inf")),
    norm=st.sampled_from((1.0, 2.0)),
)
def spec_a_norm_that_is_not_finite_is_an_error_on_demand(world, drawn, position, bad, norm):
    """With error_if_nonfinite=True clip_grad_norm_ raises an error if the norm of the gradients is infinite or no
    number, and leaves every gradient as it is."""
    parameters = with_gradients(world, drawn, 0)
    spoilt = parameters[position % len(parameters)]
    spoilt.grad.fill_(float(bad))
    before = [(p.grad, p.grad.clone(), p.grad._version) for p in parameters]

    if spoilt.numel():
        with raises(RuntimeError, "non-finite", why=f"a gradient is {bad}"):
            torch.nn.utils.clip_grad_norm_(parameters, 1.0, norm_type=norm, error_if_nonfinite=True)
    for p, (grad, old, version) in zip(parameters, before):
        same((p.grad is grad, grad._version), (True, version), why="no gradient was scaled")
        same(grad.nan_to_num(7), old.nan_to_num(7), why="no gradient was scaled")


@claim(cites=["torch_nn/clip-grad-value-clips-in-place"])
@given(
    drawn=ONE_TO_THREE,
    none=st.integers(0, 7),
    most=st.sampled_from((1, 2, 3, 10, 0)),
    given_as=st.sampled_from([*GIVEN]),
    recording=st.booleans(),
)
def spec_clip_grad_value_clips_each_element(world, drawn, none, most, given_as, recording):
    """clip_grad_value_ brings each element of the gradients in place between the bounds, unrecorded; a .grad that is
    None stays None, and no value of a parameter changes."""
    parameters = [torch.nn.Parameter(world.constant(v)) for v in drawn]
    for number, p in enumerate(parameters):
        p.grad = None if none >> number & 1 else (p.detach() * (number + 1)).contiguous()
    before = [(p.grad, None if p.grad is None else p.grad.clone()) for p in parameters]

    clipped = parameters[:1] if given_as == "parameters[0]" else parameters
    if any(p.grad is not None for p in clipped):  # if there is none, releases differ
        with torch.set_grad_enabled(recording):
            torch.nn.utils.clip_grad_value_(GIVEN[given_as](parameters), most)

    for number, (p, (grad, old)) in enumerate(zip(parameters, before)):
        same(p.grad is grad, True, why="a gradient is clipped in place, and None stays None")
        if grad is not None and (number == 0 or given_as != "parameters[0]"):
            bounded = torch.where(old > most, torch.full_like(old, most), old)
            same(grad, torch.where(bounded < -most, torch.full_like(old, -most), bounded), why=f"{most} is the bound")
            same((grad.requires_grad, grad.is_leaf), (False, True), why="nothing is recorded")
        else:
            same(grad, old, why="it wasn't among the parameters, or there is none")
        same([p, p._version], [world.constant(drawn[number]), 0], why="gradients are clipped, not values")


@claim(cites=["torch_nn/clip-grad-value-clips-in-place"], until="2.1")
@given(drawn=ONE_TO_THREE, given_as=st.sampled_from([*GIVEN]))
def spec_where_there_is_no_gradient_no_value_is_clipped(world, drawn, given_as):
    """clip_grad_value_ does nothing if no parameter has a .grad."""
    parameters = with_gradients(world, drawn, 7)
    torch.nn.utils.clip_grad_value_(GIVEN[given_as](parameters), 1)
    for p, v in zip(parameters, drawn):
        same([p, p.grad], [world.constant(v), None], why="there is no gradient")


@claim(observed=True, cites=["torch_nn/clip-grad-value-clips-in-place"], since="2.1")
@given(drawn=ONE_TO_THREE, given_as=st.sampled_from([*GIVEN]))
def spec_where_there_is_no_gradient_clipping_values_fails(world, drawn, given_as):
    """clip_grad_value_ raises an error if no parameter has a .grad, unlike clip_grad_norm_, whose norm is 0 then;
    nothing is changed."""
    parameters = with_gradients(world, drawn, 7)
    with raises(RuntimeError, why="there is no gradient"):
        torch.nn.utils.clip_grad_value_(GIVEN[given_as](parameters), 1)
    same(float(torch.nn.utils.clip_grad_norm_(GIVEN[given_as](parameters), 1)), 0.0, why="there is no gradient")
    for p, v in zip(parameters, drawn):
        same([p, p.grad], [world.constant(v), None], why="there is no gradient")


@claim(cites=["torch_nn/parameters-become-a-vector"])
@given(drawn=OF_ONE_DTYPE, frozen=st.integers(0, 7), factor=st.sampled_from((1, 2, -3)), twice=st.booleans())
def spec_a_vector_of_parameters_has_their_gradients(world, drawn, frozen, factor, twice):
    """parameters_to_vector() gives one vector of all elements, parameter after parameter, recorded: backward through
    it gives each parameter that requires grad its own part, and a parameter that comes twice both."""
    parameters = [torch.nn.Parameter(world.constant(v)) for v in drawn]
    dtype = parameters[0].dtype
    for number, p in enumerate(parameters):
        p.requires_grad_(not frozen >> number & 1)
    parameters += parameters[:1] * twice

    vector = torch.nn.utils.parameters_to_vector(iter(parameters))
    same(vector.detach(), torch.cat([p.detach().reshape(-1) for p in parameters]), why="they come one after the other")
    same(vector.requires_grad, any(p.requires_grad for p in parameters), why="it is computed from them")
    weights = torch.arange(vector.numel(), device=vector.device).to(dtype) * factor
    if vector.requires_grad:
        vector.backward(weights)

    start, expected = 0, {}
    for p in parameters:
        part = weights[start : start + p.numel()].reshape(p.shape)
        expected[p] = part + expected.get(p, 0)
        start += p.numel()
    for p in parameters:
        same(p.grad, expected[p] if p.requires_grad else None, why="each has its own part of the vector")


@claim(observed=True, cites=["torch_nn/a-vector-is-copied-into-parameters"])
@given(
    drawn=OF_ONE_DTYPE,
    graph=st.booleans(),
    frozen=st.integers(0, 7),
    grad=st.sampled_from((None, 3)),
    recording=st.booleans(),
)
def spec_a_vector_becomes_the_memory_of_parameters(world, drawn, graph, frozen, grad, recording):
    """vector_to_parameters() makes slices of the vector the memory of the parameters, in any grad mode: they are the
    same leaves, with requires_grad and .grad as before, no graph leads to the vector, and what changes it shows."""
    parameters = [torch.nn.Parameter(world.constant(v)) for v in drawn]
    dtype = parameters[0].dtype
    for number, p in enumerate(parameters):
        p.requires_grad_(not frozen >> number & 1)
    for p in parameters:
        p.grad = None if grad is None else torch.full_like(p, grad).detach()
    before = [p.grad for p in parameters]
    count = sum(p.numel() for p in parameters)
    x = torch.arange(count, device=world.device).to(dtype).requires_grad_()
    vector = x * 2 if graph else x.detach() * 2

    with torch.set_grad_enabled(recording):
        torch.nn.utils.vector_to_parameters(vector, iter(parameters))

    for shift in (0, 5):
        start = 0
        vector.data.add_(shift)
        for number, p in enumerate(parameters):
            expected = torch.arange(start, start + p.numel(), device=p.device).to(dtype).reshape(p.shape) * 2 + shift
            same(p, expected, why="it has its own part of the vector, and shares its memory")
            flags = (p.is_leaf, p.requires_grad, p.grad_fn, p.grad is before[number])
            same(flags, (True, not frozen >> number & 1, None, True), why="only the values are others")
            start += p.numel()
    for p in parameters:
        p.grad = None
    (world.leaf(drawn[0]).sum() + sum((p * 2).sum() for p in parameters)).backward()
    for p in parameters:
        same(p.grad, torch.full_like(p, 2) if p.requires_grad else None, why="it is a leaf")
    same(x.grad, None, why="nothing leads to the vector")


@claim(observed=True)
@given(v=values(shapes=((2,), (3,), (2, 3), (), (1,))), kind=st.sampled_from(("short", "list")))
def spec_a_vector_that_does_not_fit_is_refused(world, v, kind):
    """vector_to_parameters() raises an error for a vector with too few elements, and for what is no tensor; the
    parameter that found too few is as it was, those before it are filled."""
    p, q = torch.nn.Parameter(world.constant(v)), torch.nn.Parameter(world.constant(v))
    vector = torch.zeros(p.numel() + q.numel() - 1, dtype=p.dtype, device=p.device)
    if kind == "list":
        with raises(TypeError, "torch.Tensor", why="a list is no vector"):
            torch.nn.utils.vector_to_parameters(vector.tolist(), [p, q])
    else:
        with raises(RuntimeError, why="an element is missing"):
            torch.nn.utils.vector_to_parameters(vector, [p, q])
    same(q, world.constant(v), why="there was nothing for it")
    same(p, world.constant(v) if kind == "list" else torch.zeros_like(p), why="it had its part, if there was a vector")
    same((p.is_leaf, p.requires_grad, q.is_leaf, q.requires_grad), (True, True, True, True), why="they are leaves")
