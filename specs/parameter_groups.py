"""What an optimizer is given: groups of parameters, each with its options, and what it refuses."""

import copy

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import WRITABLE, claim, raises, same, silent, values, warns
from .kit.choices import some_of

ONE_TO_THREE = st.lists(values(layouts=WRITABLE), min_size=1, max_size=3)


@claim(
    cites=["torch_optim/groups-have-options", "torch_optim/add-param-group-adds", "torch_optim/parameters-in-groups"]
)
@given(
    drawn=ONE_TO_THREE,
    options=st.lists(
        st.tuples(st.sampled_from((None, 1, 2, 0.5)), st.sampled_from((None, 0, 1))), min_size=3, max_size=3
    ),
    late=st.integers(0, 2),
    foreach=st.sampled_from((None, False, True)),
    single=st.booleans(),
)
def spec_each_group_is_stepped_with_its_own_options(world, drawn, options, late, foreach, single):
    """Each parameter group is stepped with its own options, and with the optimizer's defaults for those it doesn't
    name; one that is added later is stepped from then on."""
    parameters = [torch.nn.Parameter(world.constant(v)) for v in drawn]
    named = [{k: o for k, o in zip(("lr", "weight_decay"), each) if o is not None} for each in options]
    groups = [{"params": p if single else [p], **named[i]} for i, p in enumerate(parameters)]
    early = max(1, len(groups) - late)
    sgd = torch.optim.SGD(groups[:early], lr=4, weight_decay=2, foreach=foreach)
    expected = [world.constant(v) for v in drawn]

    for added in (False, True):
        if added:
            for group in groups[early:]:
                sgd.add_param_group(group)
        for p in parameters:
            p.grad = torch.ones_like(p).detach()
        sgd.step()
        for i, p in enumerate(parameters):
            rate, decay = (default if o is None else o for o, default in zip(options[i], (4, 2)))
            if added or i < early:
                expected[i] = expected[i] - rate * (1 + decay * expected[i])
            same(p, expected[i], why=f"its options are {named[i]}")
            same(p.grad, torch.ones_like(p), why="a step reads gradients only")
    same([g["params"][0] is p for g, p in zip(sgd.param_groups, parameters)], [True] * len(parameters), why="in order")


# What an optimizer that has p, beside a new leaf q, refuses to take: with what error, which says what.
NO_PARAMETERS = {
    "[q * 2]": (lambda p, q: [q * 2], ValueError, "non-leaf"),
    "[q, q[...]]": (lambda p, q: [q, q[...]], ValueError, "non-leaf"),
    "q": (lambda p, q: q, TypeError, "iterable"),
    "[]": (lambda p, q: [], ValueError, "empty"),
    "[q, 3]": (lambda p, q: [q, 3], TypeError, "Tensors"),
    "{q}": (lambda p, q: [{"params": {q}}], TypeError, "ordered"),
    "[{q}, {q}]": (lambda p, q: [{"params": [q]}, {"params": [q]}], ValueError, "more than one"),
    "[{q}, {p, q}]": (lambda p, q: [{"params": [q]}, {"params": [p, q]}], ValueError, "more than one"),
}


NO_GROUPS = {
    "{'params': [q * 2]}": (lambda p, q: {"params": [q * 2]}, ValueError, "non-leaf"),
    "{'params': [q, q * 2]}": (lambda p, q: {"params": [q, q * 2]}, ValueError, "non-leaf"),
    "{'params': [p]}": (lambda p, q: {"params": [p]}, ValueError, "more than one"),
    "{'params': [q, p]}": (lambda p, q: {"params": [q, p]}, ValueError, "more than one"),
    "{'params': {q}}": (lambda p, q: {"params": {q}}, TypeError, "ordered"),
    "{'params': [q, 3]}": (lambda p, q: {"params": [q, 3]}, TypeError, "Tensors"),
}


@claim(
    cites=["torch_optim/parameters-come-in-order", "torch_optim/add-param-group-adds", "torch_optim/takes-leaves-only"]
)
@given(v=values(layouts=WRITABLE), refused=some_of(NO_PARAMETERS, 4), groups=some_of(NO_GROUPS, 4), used=st.booleans())
def spec_an_optimizer_refuses_what_cannot_be_optimized(world, v, refused, groups, used):
    """An optimizer takes no tensor that isn't a leaf, no set, nothing that isn't a tensor, and no parameter in two
    groups: it raises an error, and one that stands already has its groups and goes on as before."""
    p, q = torch.nn.Parameter(world.constant(v)), world.leaf(v)
    sgd = torch.optim.SGD([p], lr=1)
    loss = (p * 3 + q * 2).sum()
    if used:
        q.grad = torch.ones_like(q).detach()

    for name in refused:
        make, error, telling = NO_PARAMETERS[name]
        with raises(error, telling, why=f"{name} can't be optimized"):
            torch.optim.SGD(make(p, q), lr=1)
    for name in groups:
        make, error, telling = NO_GROUPS[name]
        with raises(error, telling, why=f"{name} can't be added"):
            sgd.add_param_group(make(p, q))
        same([[each is p for each in g["params"]] for g in sgd.param_groups], [[True]], why="no group was added")

    same((q.is_leaf, q.requires_grad, q.grad_fn, q._version), (True, True, None, 0), why="it was refused")
    same(q.grad, torch.ones_like(q) if used else None, why="it was refused")
    loss.backward()
    sgd.step()
    same(p, world.constant(v) - 3, why="the optimizer goes on")
    same(q, world.constant(v), why="it isn't one of the optimizer's parameters")


@claim(observed=True)
@given(v=values(layouts=WRITABLE), doubled=st.booleans(), steps=st.integers(1, 2))
def spec_a_result_that_retains_its_grad_can_be_optimized(world, v, doubled, steps):
    """An optimizer takes a result that retains its .grad, too, and steps it in place without a record: it keeps the
    history that it had."""
    x = world.leaf(v)
    y = x * 2 if doubled else x.clone()
    old, node = y.detach().clone(), y.grad_fn
    y.retain_grad()
    sgd = torch.optim.SGD([y], lr=1)
    for _ in range(steps):
        y.grad = torch.full_like(y, 3).detach()
        sgd.step()

    same(y, old - 3 * steps, why="the gradient was followed")
    same((y.is_leaf, y.requires_grad), (False, True), why="the step wasn't recorded")
    same(y.grad_fn is node, True, why="the step wasn't recorded")
    (y * 5).sum().backward()
    same(x.grad, torch.full_like(x, 10 if doubled else 5), why="the history is that of the operation")


@claim(observed=True)
@given(v=values(layouts=WRITABLE), times=st.integers(2, 3), foreach=st.sampled_from((False,)))
def spec_a_parameter_listed_twice_is_stepped_twice(world, v, times, foreach):
    """A parameter that is listed several times in a group gives a warning, and each step steps it as often. Tied
    parameters that parameters() of a module gives are listed, and stepped, once."""
    p = torch.nn.Parameter(world.constant(v))
    with warns(UserWarning, "duplicate", why=f"p is listed {times} times"):
        twice = torch.optim.SGD([p] * times, lr=1, foreach=foreach)
    p.grad = torch.ones_like(p).detach()
    twice.step()
    same(p, world.constant(v) - times, why=f"p is listed {times} times")

    q = torch.nn.Parameter(world.constant(v))
    tied = torch.nn.ModuleList([torch.nn.ParameterList([q]) for _ in range(times)])
    with silent(why="parameters() gives a shared parameter once"):
        once = torch.optim.SGD(tied.parameters(), lr=1, foreach=foreach)
    sum((each[0] * 2).sum() for each in tied).backward()
    once.step()
    same(q, world.constant(v) - 2 * times, why="the gradient is the sum over all uses")


@claim(observed=True, needs=["float64"])
@given(v=values(layouts=WRITABLE, dtypes=("float32",)), grad=st.sampled_from((None, 3)), copied=st.booleans())
def spec_an_optimizer_goes_on_with_a_module_that_was_converted(world, v, grad, copied):
    """An optimizer made before a module is converted to another dtype goes on stepping the parameters of the module,
    which are the same; one made before a deep copy steps the original and not the copy."""
    module = torch.nn.ParameterList([torch.nn.Parameter(world.constant(v)), torch.nn.Parameter(world.constant(v))])
    sgd = torch.optim.SGD(module.parameters(), lr=1, momentum=0.5)
    for p in module:
        p.grad = None if grad is None else torch.full_like(p, grad).detach()
    sgd.step()
    module.double()
    for p in module:
        p.grad = None
    sum((p * 2).sum() for p in module).backward()
    if grad is not None:
        sgd.state.clear()  # momentum is no part of the module, and keeps its dtype
    sgd.step()

    for p in module:
        same(p, world.constant(v).double() - (grad or 0) - 2, why="these are the optimizer's parameters still")
        same(p.grad, torch.full_like(p, 2), why="a step reads gradients only")


STATEFUL = {
    "SGD(ps, lr=0.5, momentum=0.5)": lambda ps: torch.optim.SGD(ps, lr=0.5, momentum=0.5),
    "SGD(ps, lr=0.5, momentum=0.5, foreach=True)": lambda ps: torch.optim.SGD(ps, lr=0.5, momentum=0.5, foreach=True),
    "Adam(ps, amsgrad=True)": lambda ps: torch.optim.Adam(ps, amsgrad=True),
    "Adagrad(ps)": lambda ps: torch.optim.Adagrad(ps),
    "Adadelta(ps)": lambda ps: torch.optim.Adadelta(ps),
    "RMSprop(ps, momentum=0.5, centered=True)": lambda ps: torch.optim.RMSprop(ps, momentum=0.5, centered=True),
    "Rprop(ps)": lambda ps: torch.optim.Rprop(ps),
}


@claim(cites=["torch_optim/state-without-parameters", "torch_optim/state-can-be-loaded"])
@given(
    drawn=ONE_TO_THREE,
    name=st.sampled_from([*STATEFUL]),
    create_graph=st.booleans(),
    skipped=st.integers(0, 7),
    recording=st.booleans(),
)
def spec_the_state_of_an_optimizer_has_no_graph_and_goes_on(world, drawn, name, create_graph, skipped, recording):
    """What an optimizer keeps from step to step has no graph, not even if the gradients have one. Its state_dict(),
    loaded into an optimizer of equal parameters, lets that go on as this one; gradients and parameters stay alone."""
    parameters = [torch.nn.Parameter(world.constant(v)) for v in drawn]
    first = STATEFUL[name](parameters)
    used = [p for i, p in enumerate(parameters) if not skipped >> i & 1]
    if used:
        sum((p * p + p).sum() for p in used).backward(create_graph=create_graph)
    first.step()
    tensors = [t for state in first.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
    same([(t.requires_grad, t.grad_fn) for t in tensors], [(False, None)] * len(tensors), why="it is read from .grad")
    for p in parameters:
        p.grad = None

    others = [torch.nn.Parameter(p.detach().clone()) for p in parameters]
    second = STATEFUL[name](others)
    with torch.set_grad_enabled(recording):
        second.load_state_dict(copy.deepcopy(first.state_dict()))  # which refers to the state itself
    for p, q in zip(parameters, others):
        same([q, q.grad, q._version], [p.detach(), None, 0], why="parameters aren't in the state")
        same((q.is_leaf, q.requires_grad), (True, True), why="parameters aren't in the state")
        p.grad, q.grad = torch.full_like(p, 3).detach(), torch.full_like(q, 3).detach()
    first.step()
    second.step()
    for p, q in zip(parameters, others):
        same(q, p.detach(), why="the second goes on as the first")
        same(q.data_ptr() == p.data_ptr() and p.numel() > 0, False, why="each has parameters of its own")


@claim(observed=True, cites=["torch_optim/state-can-be-loaded"], since="2.1")
@given(drawn=ONE_TO_THREE, steps=st.integers(1, 2))
def spec_loading_the_state_of_an_optimizer_shares_it(world, drawn, steps):
    """An optimizer that loads the state_dict() of another has the very tensors of that one's state: steps of the one
    change the momentum of the other."""
    parameters = [torch.nn.Parameter(world.constant(v)) for v in drawn]
    others = [torch.nn.Parameter(world.constant(v)) for v in drawn]
    first, second = (torch.optim.SGD(ps, lr=1, momentum=0.5) for ps in (parameters, others))
    for p in parameters:
        p.grad = torch.full_like(p, 2).detach()
    first.step()
    second.load_state_dict(first.state_dict())
    for _ in range(steps):
        first.step()
    for p, q in zip(parameters, others):
        mine, its = second.state[q]["momentum_buffer"], first.state[p]["momentum_buffer"]
        same(mine is its, True, why="nothing was copied")
        same(mine, torch.full_like(p, 4 - 2 * 0.5**steps), why="the momentum of the steps after loading")


@claim(cites=["torch_optim/state-can-be-loaded"], until="2.1")
@given(drawn=ONE_TO_THREE, steps=st.integers(1, 2))
def spec_loading_the_state_of_an_optimizer_copies_it(world, drawn, steps):
    """An optimizer that loads the state_dict() of another copies the tensors of that one's state."""
    parameters = [torch.nn.Parameter(world.constant(v)) for v in drawn]
    others = [torch.nn.Parameter(world.constant(v)) for v in drawn]
    first, second = (torch.optim.SGD(ps, lr=1, momentum=0.5) for ps in (parameters, others))
    for p in parameters:
        p.grad = torch.full_like(p, 2).detach()
    first.step()
    second.load_state_dict(first.state_dict())
    for _ in range(steps):
        first.step()
    for q in others:
        same(second.state[q]["momentum_buffer"], torch.full_like(q, 2), why="the momentum when it was loaded")
