"""Optimizers: which parameters a step changes, how, and what it leaves alone."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import NONEMPTY, WRITABLE, claim, raises, same, values

ONE_TO_THREE = st.lists(values(layouts=WRITABLE), min_size=1, max_size=3)


@claim(cites=["torch_optim/step-updates-the-parameters", "torch_optim/sgd-follows-its-formula"])
@given(
    drawn=ONE_TO_THREE,
    rates=st.tuples(st.sampled_from((1, 0.5, 2, 0)), st.sampled_from((0, 0.5, 1)), st.sampled_from((0, 0.5))),
    decay=st.sampled_from((0, 1, 0.5)),
    variant=st.sampled_from(("", "nesterov", "maximize")),
    foreach=st.sampled_from((None, False, True)),
    steps=st.integers(1, 3),
)
def spec_sgd_subtracts_multiples_of_the_gradients(world, drawn, rates, decay, variant, foreach, steps):
    """A step of SGD takes lr times the gradient off every parameter; weight decay adds to the gradient, maximize
    turns it round, momentum carries earlier gradients on, as the formulas of its documentation say."""
    rate, momentum, dampening = rates
    nesterov = variant == "nesterov" and momentum > 0
    if nesterov:
        dampening = 0
    parameters = [torch.nn.Parameter(world.constant(v)) for v in drawn]
    sgd = torch.optim.SGD(
        parameters,
        lr=rate,
        momentum=momentum,
        dampening=dampening,
        weight_decay=decay,
        nesterov=nesterov,
        maximize=variant == "maximize",
        foreach=foreach,
    )
    expected = [world.constant(v) for v in drawn]
    kept = [None for _ in drawn]  # the momentum, which begins with the first gradient

    for number in range(1, steps + 1):
        sgd.zero_grad()
        sum((p * number * (1 + i)).sum() for i, p in enumerate(parameters)).backward()
        sgd.step()

        for i, p in enumerate(parameters):
            g = torch.full_like(expected[i], number * (1 + i))
            g = (-g if variant == "maximize" else g) + decay * expected[i]
            if momentum:
                kept[i] = g if kept[i] is None else momentum * kept[i] + (1 - dampening) * g
                g = g + momentum * kept[i] if nesterov else kept[i]
            expected[i] = expected[i] - rate * g
            same(p, expected[i], why=f"that is step {number} for parameter {i}")


# What makes an optimizer of parameters, or of groups of them.
OPTIMIZERS = {
    "SGD(ps, lr=0.5)": lambda ps: torch.optim.SGD(ps, lr=0.5),
    "SGD(ps, lr=0.5, momentum=0.5)": lambda ps: torch.optim.SGD(ps, lr=0.5, momentum=0.5),
    "SGD(ps, lr=0.5, momentum=0.5, nesterov=True, foreach=False)": lambda ps: torch.optim.SGD(
        ps, lr=0.5, momentum=0.5, nesterov=True, foreach=False
    ),
    "SGD(ps, lr=0.5, weight_decay=0.5, maximize=True)": lambda ps: torch.optim.SGD(
        ps, lr=0.5, weight_decay=0.5, maximize=True
    ),
    "SGD(ps, lr=0.5, weight_decay=0.5, foreach=True)": lambda ps: torch.optim.SGD(
        ps, lr=0.5, weight_decay=0.5, foreach=True
    ),
    "SGD(ps, lr=0.5, momentum=0.5, maximize=True, foreach=True)": lambda ps: torch.optim.SGD(
        ps, lr=0.5, momentum=0.5, maximize=True, foreach=True
    ),
    "Adam(ps)": lambda ps: torch.optim.Adam(ps),
    "Adam(ps, amsgrad=True, weight_decay=0.5, maximize=True)": lambda ps: torch.optim.Adam(
        ps, amsgrad=True, weight_decay=0.5, maximize=True
    ),
    "Adam(ps, weight_decay=0.5, foreach=True)": lambda ps: torch.optim.Adam(ps, weight_decay=0.5, foreach=True),
    "AdamW(ps, maximize=True)": lambda ps: torch.optim.AdamW(ps, maximize=True),
    "AdamW(ps, foreach=True)": lambda ps: torch.optim.AdamW(ps, foreach=True),
    "Adamax(ps, weight_decay=0.5)": lambda ps: torch.optim.Adamax(ps, weight_decay=0.5),
    "Adamax(ps, weight_decay=0.5, foreach=True)": lambda ps: torch.optim.Adamax(ps, weight_decay=0.5, foreach=True),
    "NAdam(ps, weight_decay=0.5)": lambda ps: torch.optim.NAdam(ps, weight_decay=0.5),
    "NAdam(ps, weight_decay=0.5, foreach=True)": lambda ps: torch.optim.NAdam(ps, weight_decay=0.5, foreach=True),
    "RAdam(ps, weight_decay=0.5)": lambda ps: torch.optim.RAdam(ps, weight_decay=0.5),
    "RAdam(ps, weight_decay=0.5, foreach=True)": lambda ps: torch.optim.RAdam(ps, weight_decay=0.5, foreach=True),
    "Adagrad(ps, weight_decay=0.5, maximize=True)": lambda ps: torch.optim.Adagrad(ps, weight_decay=0.5, maximize=True),
    "Adagrad(ps, weight_decay=0.5, foreach=True)": lambda ps: torch.optim.Adagrad(ps, weight_decay=0.5, foreach=True),
    "Adadelta(ps, weight_decay=0.5, maximize=True)": lambda ps: torch.optim.Adadelta(
        ps, weight_decay=0.5, maximize=True
    ),
    "Adadelta(ps, weight_decay=0.5, foreach=True)": lambda ps: torch.optim.Adadelta(ps, weight_decay=0.5, foreach=True),
    "RMSprop(ps, momentum=0.5, centered=True)": lambda ps: torch.optim.RMSprop(ps, momentum=0.5, centered=True),
    "RMSprop(ps, weight_decay=0.5, foreach=True)": lambda ps: torch.optim.RMSprop(ps, weight_decay=0.5, foreach=True),
    "Rprop(ps)": lambda ps: torch.optim.Rprop(ps),
    "Rprop(ps, foreach=True)": lambda ps: torch.optim.Rprop(ps, foreach=True),
    "ASGD(ps, weight_decay=0.5)": lambda ps: torch.optim.ASGD(ps, weight_decay=0.5),
    "ASGD(ps, weight_decay=0.5, foreach=True)": lambda ps: torch.optim.ASGD(ps, weight_decay=0.5, foreach=True),
}
ANY_OPTIMIZER = st.sampled_from([*OPTIMIZERS])
DECAYING = [name for name in OPTIMIZERS if name.endswith("weight_decay=0.5, foreach=True)") and "SGD" not in name]


@claim(
    cites=[
        "torch_optim/step-updates-the-parameters",
        "torch_optim/step-leaves-grad-alone",
        "autograd_mechanics/no-grad-for-in-place-updates",
    ]
)
@given(
    drawn=ONE_TO_THREE,
    name=ANY_OPTIMIZER,
    create_graph=st.booleans(),
    recording=st.booleans(),
    steps=st.integers(1, 2),
)
def spec_a_step_changes_leaves_in_place_and_records_nothing(world, drawn, name, create_graph, recording, steps):
    """A step of any optimizer, in any grad mode, changes its parameters in place, which is counted and not recorded:
    they are the same leaves in the same memory. It leaves .grad and grad mode as they are, be .grad with a graph."""
    parameters = [torch.nn.Parameter(world.constant(v)) for v in drawn]
    optimizer = OPTIMIZERS[name](parameters)
    for _ in range(steps):
        for p in parameters:
            p.grad = None
        sum((p * p + 7 * p).sum() for p in parameters).backward(create_graph=create_graph)
        before = [(p.detach().clone(), p.grad, p._version, p.grad.detach().clone(), p.data_ptr()) for p in parameters]

        with torch.set_grad_enabled(recording):
            optimizer.step()
            same(torch.is_grad_enabled(), recording, why="the mode is the caller's")

        for p, (old, grad, version, gradient, address) in zip(parameters, before):
            same((p.is_leaf, p.requires_grad, p.grad_fn), (True, True, None), why="nothing was recorded")
            same((p.data_ptr(), p.dtype, p.shape), (address, old.dtype, old.shape), why="it was changed in place")
            same(p.grad is grad, True, why=f"{name} reads the gradient")
            if name not in DECAYING:
                same(grad, gradient, why=f"{name} reads the gradient")
            same(grad.requires_grad, create_graph, why=f"{name} reads the gradient")
            if p.numel():
                same(p._version > version, True, why="a change in place is counted")
    moved = [bool((p != world.constant(v)).any()) for p, v in zip(parameters, drawn)]
    same(moved, [bool((2 * world.constant(v) + 7 != 0).any()) for v in drawn], why="a gradient was followed")
    for p in parameters:
        p.grad = None  # don't keep the graph that refers to the parameter


@claim(observed=True, cites=["torch_optim/step-leaves-grad-alone"])
@given(drawn=ONE_TO_THREE, number=st.integers(-3, 3), steps=st.integers(1, 3))
def spec_nesterov_momentum_is_written_into_grad_by_foreach(world, drawn, number, steps):
    """SGD with nesterov=True and foreach=True, which is the default on CUDA, adds the momentum to .grad itself in each
    step: without zero_grad() in between the next step takes it for a part of the gradient."""
    parameters = [torch.nn.Parameter(world.constant(v)) for v in drawn]
    sgd = torch.optim.SGD(parameters, lr=0.5, momentum=0.5, nesterov=True, foreach=True)
    for p in parameters:
        p.grad = torch.full_like(p, number).detach()
    seen, momentum = number, 0
    for _ in range(steps):
        sgd.step()
        momentum = 0.5 * momentum + seen
        seen = seen + 0.5 * momentum
        for p in parameters:
            same(p.grad, torch.full_like(p, seen).detach(), why=f"the gradient was {number}")


@claim(cites=["torch_optim/step-leaves-grad-alone"], since="2.0")
@given(drawn=ONE_TO_THREE, name=st.sampled_from(DECAYING), number=st.integers(-3, 3))
def spec_weight_decay_is_not_written_into_grad(world, drawn, name, number):
    """A step with weight decay and foreach=True leaves .grad as it is."""
    parameters = [torch.nn.Parameter(world.constant(v)) for v in drawn]
    for p in parameters:
        p.grad = torch.full_like(p, number).detach()
    OPTIMIZERS[name](parameters).step()
    for p in parameters:
        same(p.grad, torch.full_like(p, number), why=f"{name} reads the gradient")


@claim(observed=True, cites=["torch_optim/step-leaves-grad-alone"], until="2.0")
@given(drawn=ONE_TO_THREE, name=st.sampled_from(DECAYING), number=st.integers(-3, 3))
def spec_weight_decay_is_written_into_grad(world, drawn, name, number):
    """A step with weight decay and foreach=True, except one of SGD or ASGD, adds the decay to .grad in place."""
    parameters = [torch.nn.Parameter(world.constant(v)) for v in drawn]
    for p in parameters:
        p.grad = torch.full_like(p, number).detach()
    OPTIMIZERS[name](parameters).step()
    for p, v in zip(parameters, drawn):
        same(p.grad, number + 0.5 * world.constant(v), why=f"{name} adds half the parameter to the gradient")


@claim(cites=["torch_optim/none-is-skipped-and-zero-is-not"])
@given(
    v=values(layouts=WRITABLE),
    name=ANY_OPTIMIZER,
    position=st.integers(0, 2),
    earlier=st.booleans(),
    frozen=st.booleans(),
)
def spec_a_step_skips_parameters_without_a_gradient(world, v, name, position, earlier, frozen):
    """A parameter whose .grad is None is left alone by a step, whether it required grad or was learned before, and so
    is its version; the other parameters are changed as if it weren't there."""
    parameters = [torch.nn.Parameter(world.constant(v)) for _ in range(3)]
    others = [torch.nn.Parameter(world.constant(v)) for _ in range(2)]
    optimizer, alone = OPTIMIZERS[name](parameters), OPTIMIZERS[name](others)
    for number in range(1 + earlier):
        for p in parameters + others:
            p.grad = torch.full_like(p, 3).detach()
        if number == earlier:
            skipped = parameters.pop(position)
            skipped.grad = None
            skipped.requires_grad_(not frozen)
            old, version = skipped.detach().clone(), skipped._version
        optimizer.step()
        alone.step()

    same([skipped, skipped.grad], [old, None], why="it has no gradient")
    same(skipped._version, version, why="it wasn't written")
    same(skipped.requires_grad, not frozen, why="it wasn't written")
    for p, q in zip(parameters, others):
        same(p, q.detach(), why="the others have gradients")


@claim(cites=["torch_optim/none-is-skipped-and-zero-is-not"])
@given(
    drawn=ONE_TO_THREE,
    zeros=st.integers(0, 7),
    decay=st.sampled_from((0, 1)),
    foreach=st.sampled_from((None, False, True)),
)
def spec_a_step_moves_parameters_whose_gradient_is_zero(world, drawn, zeros, decay, foreach):
    """A gradient of zeros is a gradient: momentum and weight decay move its parameter on, whereas None leaves the
    parameter where it is."""
    parameters = [torch.nn.Parameter(world.constant(v)) for v in drawn]
    sgd = torch.optim.SGD(parameters, lr=1, momentum=0.5, weight_decay=decay, foreach=foreach)
    for p in parameters:
        p.grad = torch.full_like(p, 2).detach()
    sgd.step()
    first = [world.constant(v) - (2 + decay * world.constant(v)) for v in drawn]
    for number, p in enumerate(parameters):
        p.grad = p.grad.zero_() if zeros >> number & 1 else None
    sgd.step()

    for number, (p, v) in enumerate(zip(parameters, drawn)):
        moved = first[number] - (decay * first[number] + 0.5 * (2 + decay * world.constant(v)))
        same(p, moved if zeros >> number & 1 else first[number], why=f"{'zeros' if zeros >> number & 1 else 'None'}")
        same(p.grad, torch.zeros_like(p) if zeros >> number & 1 else None, why="a step reads gradients only")


@claim(observed=True)
@given(
    v=values(layouts=WRITABLE), grad=st.sampled_from((None, 3)), when=st.sampled_from(("before", "after", "between"))
)
def spec_a_step_looks_at_grad_and_not_at_requires_grad(world, v, grad, when):
    """An optimizer takes parameters that don't require grad. Backward gives those no gradient, so that a step leaves
    them alone; but a .grad that one still has from before it was frozen is followed."""
    p, q = torch.nn.Parameter(world.constant(v)), torch.nn.Parameter(world.constant(v))
    p.grad = None if grad is None else torch.full_like(p, grad).detach()
    if when == "before":
        p.requires_grad_(False)
    sgd = torch.optim.SGD([p, q], lr=1)
    if when == "between":
        p.requires_grad_(False)
    (p * q).sum().backward()
    if when == "after":  # too late: the gradient is there
        p.requires_grad_(False)
    sgd.step()

    old = world.constant(v)
    learned = old if when == "after" else 0 * old
    same(p, old - learned - (grad or 0), why="a step follows .grad")
    same(q, old - old, why="q requires grad")
    same((p.requires_grad, p.is_leaf), (False, True), why="it stays frozen")


@claim(cites=["torch_optim/zero-grad-resets-all-optimized", "torch_optim/set-to-none-or-zero"])
@given(
    drawn=ONE_TO_THREE,
    name=ANY_OPTIMIZER,
    set_to_none=st.booleans(),
    none=st.integers(0, 7),
    create_graph=st.booleans(),
    grouped=st.booleans(),
)
def spec_zero_grad_resets_the_gradients_of_its_parameters(world, drawn, name, set_to_none, none, create_graph, grouped):
    """zero_grad(set_to_none=True) makes the .grad of every parameter in every group None; with False it zeroes the
    tensors in place, cut off from any graph, and leaves None. Other tensors and all values stay as they are."""
    parameters = [torch.nn.Parameter(world.constant(v)) for v in drawn]
    other = world.leaf(drawn[0])
    optimizer = OPTIMIZERS[name]([{"params": [p]} for p in parameters] if grouped else parameters)
    loss = (other * 3).sum() + sum((p * p).sum() for i, p in enumerate(parameters) if not none >> i & 1)
    loss.backward(create_graph=create_graph)
    before = [p.grad for p in parameters]
    kept = other.grad

    optimizer.zero_grad(set_to_none=set_to_none)

    for p, grad, v in zip(parameters, before, drawn):
        if set_to_none or grad is None:
            same(p.grad, None, why="it was reset, or there was none")
            same(grad, None if grad is None else 2 * world.constant(v), why="the tensor itself wasn't written")
        else:
            same(p.grad is grad, True, why="it was zeroed in place")
            same(grad, torch.zeros_like(p), why="it was reset")
            same((grad.requires_grad, grad.is_leaf, grad.grad_fn), (False, True, None), why="its graph was cut off")
        same([p, p.requires_grad], [world.constant(v), True], why="values aren't reset")
    same(other.grad is kept, True, why="it isn't one of the optimizer's parameters")
    same(other.grad, torch.full_like(other, 3), why="it isn't one of the optimizer's parameters")
    for p in [*parameters, other]:
        p.grad = None  # don't keep the graph that refers to the parameter


@claim(cites=["torch_optim/zero-grad-resets-all-optimized", "torch_optim/zero-grad-sets-none-by-default"], since="2.0")
@given(drawn=ONE_TO_THREE, name=ANY_OPTIMIZER)
def spec_zero_grad_sets_grad_to_none(world, drawn, name):
    """zero_grad() of an optimizer makes the .grad of its parameters None."""
    parameters = [torch.nn.Parameter(world.constant(v)) for v in drawn]
    optimizer = OPTIMIZERS[name](parameters)
    sum((p * p).sum() for p in parameters).backward()
    optimizer.zero_grad()
    same([p.grad for p in parameters], [None for _ in parameters], why="None is the default")


@claim(cites=["torch_optim/zero-grad-resets-all-optimized", "torch_optim/zero-grad-sets-none-by-default"], until="2.0")
@given(drawn=ONE_TO_THREE, name=ANY_OPTIMIZER)
def spec_zero_grad_fills_grad_with_zeros(world, drawn, name):
    """zero_grad() of an optimizer fills the .grad of its parameters with zeros in place."""
    parameters = [torch.nn.Parameter(world.constant(v)) for v in drawn]
    optimizer = OPTIMIZERS[name](parameters)
    sum((p * p).sum() for p in parameters).backward()
    before = [p.grad for p in parameters]
    optimizer.zero_grad()
    for p, grad in zip(parameters, before):
        same(p.grad is grad, True, why="it was zeroed in place")
        same(grad, torch.zeros_like(p), why="zeros are the default")


@claim(
    cites=["torch_autograd/zero-grad-leaves-the-layout", "torch_autograd/first-grad-is-laid-out-like-the-leaf"],
)
@given(
    v=values(shapes=((2, 3), (3, 2), (2, 2)), layouts=("contiguous",)), set_to_none=st.booleans(), module=st.booleans()
)
def spec_only_zeroing_in_place_keeps_the_layout_of_grad(world, v, set_to_none, module):
    """The strides of a .grad that the user laid out are those of the next one if zero_grad() zeroes it in place; if it
    sets it to None, the next .grad has the strides of the parameter."""
    holder = torch.nn.Module()
    holder.p = p = torch.nn.Parameter(world.constant(v))
    p.grad = torch.zeros_like(p.t()).detach().contiguous().t()
    columns = p.grad.stride()

    (holder if module else torch.optim.SGD([p], lr=1.0)).zero_grad(set_to_none=set_to_none)
    (p * 2).sum().backward()

    same(p.grad.stride(), p.stride() if set_to_none else columns, why="a new .grad is laid out like its leaf")
    same(p.grad, torch.full_like(p, 2), why="where a number lies doesn't change it")


MODES = {
    "torch.enable_grad()": lambda: torch.enable_grad(),
    "torch.no_grad()": lambda: torch.no_grad(),
    "torch.set_grad_enabled(False)": lambda: torch.set_grad_enabled(False),
}


WITH_CLOSURE = {
    **{name: (make, 1) for name, make in OPTIMIZERS.items()},
    "LBFGS(ps, max_iter=2)": (lambda ps: torch.optim.LBFGS(ps, max_iter=2), 2),
    "LBFGS(ps, max_iter=1)": (lambda ps: torch.optim.LBFGS(ps, max_iter=1), 1),
}


@claim(cites=["torch_optim/step-takes-a-closure", "torch_optim/step-leaves-grad-alone"])
@given(
    v=values(shapes=NONEMPTY, layouts=WRITABLE), name=st.sampled_from([*WITH_CLOSURE]), mode=st.sampled_from([*MODES])
)
def spec_a_closure_is_evaluated_in_grad_mode(world, v, name, mode):
    """step(closure) calls the closure with grad mode on, whatever the mode is outside, so that backward works there;
    it returns the loss that the first call gave, steps by the gradients of it, and leaves the mode as it was."""
    p = torch.nn.Parameter(world.constant(v))
    optimizer = WITH_CLOSURE[name][0]([p])
    seen, losses = [], []

    def closure():
        seen.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        losses.append(loss)
        return loss

    with MODES[mode]():
        result = optimizer.step(closure)
        same(torch.is_grad_enabled(), mode == "torch.enable_grad()", why="the mode is the caller's")

    same(seen, [True] * len(seen), why="the closure needs a graph")
    same(1 <= len(seen) <= 3, True, why="the closure is called, by LBFGS more than once")
    same(float(result), float((world.constant(v) ** 2).sum()), why="that was the loss before the step")
    same(losses[0].requires_grad, True, why="the closure recorded it")
    same((p.is_leaf, p.requires_grad, p.grad_fn), (True, True, None), why="the step itself isn't recorded")
    if bool((world.constant(v) != 0).any()):
        same(bool((p != world.constant(v)).any()), True, why="the gradient was followed")


@claim(observed=True)
@given(
    v=values(shapes=NONEMPTY, layouts=WRITABLE), name=st.sampled_from([*WITH_CLOSURE]), mode=st.sampled_from([*MODES])
)
def spec_a_closure_that_fails_leaves_everything_as_it_was(world, v, name, mode):
    """An exception in the closure ends the step with this exception: parameters, gradients and grad mode are as they
    were, and the next step works."""
    p = torch.nn.Parameter(world.constant(v))
    optimizer = WITH_CLOSURE[name][0]([p])
    p.grad = grad = torch.full_like(p, 3).detach()

    def fail():
        raise ArithmeticError("on purpose")

    with MODES[mode]():
        with raises(ArithmeticError, "on purpose", why="the closure failed"):
            optimizer.step(fail)
        same(torch.is_grad_enabled(), mode == "torch.enable_grad()", why="the mode is the caller's")
    same(torch.is_grad_enabled(), True, why="the block was left")
    same([p, p._version, p.grad is grad], [world.constant(v), 0, True], why="there was no step")

    def closure():
        return (p * 0).sum() + 1

    same(float(optimizer.step(closure)), 1.0, why="the next step works")
    same(bool((p != world.constant(v)).any()), p.numel() > 0, why="the gradient was followed")
    same((p.is_leaf, p.requires_grad, p.grad_fn), (True, True, None), why="the step itself isn't recorded")


@claim(cites=["autograd_mechanics/changed-saved-tensor-raises", "torch_optim/step-updates-the-parameters"])
@given(
    v=values(layouts=WRITABLE),
    name=ANY_OPTIMIZER,
    saved=st.booleans(),
    again=st.booleans(),
)
def spec_a_step_between_forward_and_backward_is_noticed(world, v, name, saved, again):
    """When an optimizer stepped a parameter that was saved for backward, a backward through the graph from before,
    retained or not yet used, raises an error and adds nothing; one that doesn't need the parameter works."""
    p = torch.nn.Parameter(world.constant(v))
    optimizer = OPTIMIZERS[name]([p])
    loss = (p * p).sum() if saved else (p * 2).sum()
    if again:
        loss.backward(retain_graph=True)
    p.grad = grad = torch.full_like(p, 3).detach()

    optimizer.step()
    gradient = grad.clone()

    if saved and p.numel():
        with raises(RuntimeError, "modified by an inplace operation", why=f"{name} changed p, which was saved"):
            loss.backward()
        same([p.grad is grad, grad], [True, gradient], why="nothing was added")
    elif not saved:
        p.grad = None
        loss.backward()
        same(p.grad, torch.full_like(p, 2), why="p wasn't saved")


@claim(cites=["torch_optim/differentiable-steps-are-recorded"])
@given(
    v=values(layouts=WRITABLE), w=st.sampled_from((1, -2, 3)), steps=st.integers(1, 3), decay=st.sampled_from((0, 0.5))
)
def spec_a_differentiable_step_is_recorded(world, v, w, steps, decay):
    """With differentiable=True and foreach=False a step is recorded: what the parameter is afterwards can be
    differentiated by what it was and by its gradient. The parameter is a result: a leaf can't be changed in place."""
    x = world.leaf(v)
    g = torch.full_like(x, w).requires_grad_()
    p = x.clone()
    sgd = torch.optim.SGD([p], lr=0.5, weight_decay=decay, differentiable=True, foreach=False)
    for _ in range(steps):
        p.grad = g
        sgd.step()
    (p * 2).sum().backward()

    factor, total = 1.0, 0.0
    for _ in range(steps):  # p becomes p - 0.5 * (g + decay * p)
        total = total * (1 - 0.5 * decay) - 0.5
        factor = factor * (1 - 0.5 * decay)
    same(p, factor * x.detach() + total * w, why="that is what SGD does")
    same(x.grad, torch.full_like(x, 2 * factor), why="each step was recorded")
    same(g.grad, torch.full_like(x, 2 * total), why="each step was recorded, with its gradient")


@claim(observed=True, cites=["torch_optim/differentiable-steps-are-recorded"], since="2.1")
@given(v=values(layouts=WRITABLE, shapes=NONEMPTY), w=st.integers(-3, 3))
def spec_a_differentiable_step_with_weight_decay_and_foreach_is_not_differentiated(world, v, w):
    """SGD with differentiable=True, weight decay and foreach=True, which is the default on CUDA, writes into what it
    saved: backward is an error."""
    x = world.leaf(v)
    p = x.clone()
    p.grad = torch.full_like(x, w).detach().requires_grad_()
    sgd = torch.optim.SGD([p], lr=0.5, weight_decay=0.5, differentiable=True, foreach=True)

    sgd.step()

    with raises(RuntimeError, "modified by an inplace operation", why="it was written after it was saved"):
        p.sum().backward()
