"""Saved tensors that may be written: torch.autograd.graph.allow_mutation_on_saved_tensors."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import WRITABLE, claim, raises, same, values
from .kit.choices import some_of
from .kit.writes import FILLED, WRITES, error_of, target_and_operand

ANY_WRITE = st.sampled_from(list(WRITES))
CHANGED = "modified by an inplace operation"


# Functions that save p, and their derivative.
POLYNOMIALS = {
    "p * p": (lambda p, w: p * p, lambda p, w: 2 * p),
    "p**3": (lambda p, w: p**3, lambda p, w: 3 * p * p),
    "p[...] * p": (lambda p, w: p[...] * p, lambda p, w: 2 * p),
    "p.abs() * p": (lambda p, w: p.abs() * p, lambda p, w: 2 * p.abs()),
    "torch.addcmul(w, p, p)": (lambda p, w: torch.addcmul(w, p, p), lambda p, w: 2 * p),
    "p.relu() * 2": (lambda p, w: p.relu() * 2, lambda p, w: 2 * (p > 0).to(p.dtype)),
}


@claim(cites=["torch_autograd/saved-tensors-are-cloned-when-mutated"], since="2.0")
@given(
    pair=target_and_operand(shapes=FILLED),
    functions=st.lists(st.sampled_from(list(POLYNOMIALS)), min_size=1, max_size=2),
    writes=st.lists(ANY_WRITE, min_size=2, max_size=2),
    computed=st.booleans(),
    passes=st.integers(1, 2),
)
def spec_saved_tensors_may_be_written_where_that_is_allowed(world, pair, functions, writes, computed, passes):
    """Under torch.autograd.graph.allow_mutation_on_saved_tensors() tensors can be written after they were saved,
    and saved and written again: backward computes with the numbers that each operation had. The writes are made
    in place all the same."""
    target, operand = pair
    x, w = world.leaf(target), world.constant(operand).expand(world.constant(target).shape)
    with torch.autograd.graph.allow_mutation_on_saved_tensors():
        p = x * 1 if computed else x
        numbers, address = p.detach().clone(), p.data_ptr()
        losses, derivative = [], torch.zeros_like(numbers)
        for function, write in zip(functions, writes, strict=False):
            operation, by_p = POLYNOMIALS[function]
            losses.append(operation(p, w).sum())
            derivative += by_p(numbers, w)
            with torch.no_grad():
                WRITES[write].run(p, w)
            numbers = WRITES[write].numbers(numbers, w)

        same((p, p.data_ptr()), (numbers, address), why=f"{writes} were run in place")
        for number in range(1, passes + 1):
            torch.autograd.backward(losses, retain_graph=True)
            same(x.grad, number * derivative, why=f"each of {functions} was computed before a write")


@claim(cites=["torch_autograd/saved-tensors-are-cloned-when-mutated"], since="2.0")
@given(
    pair=target_and_operand(shapes=FILLED),
    writes=some_of(WRITES, 2),
    function=st.sampled_from(["y * y", "y.relu()", "y.mul_(y)"]),
)
def spec_what_a_write_overwrites_may_have_been_saved_where_that_is_allowed(world, pair, writes, function):
    """Under allow_mutation_on_saved_tensors() also recorded writes of what was saved are differentiated: results
    that were saved, and a product of a tensor with itself in place."""
    target, operand = pair
    for write in writes:
        x, w = world.leaf(target), world.constant(operand)
        with torch.autograd.graph.allow_mutation_on_saved_tensors():
            y = x * 1
            if function == "y * y":
                before = y * y
                WRITES[write].run(y, w)
                y = before + 0 * y
            elif function == "y.relu()":
                y = y.relu()
                WRITES[write].run(y, w)
            else:
                y.mul_(y)
                WRITES[write].run(y, w)
            y.sum().backward()

        old = x.detach()
        if function == "y * y":
            expected = 2 * old
        elif function == "y.relu()":
            expected = WRITES[write].by_y(old.relu(), w) * (old > 0).to(old.dtype)
        else:
            expected = WRITES[write].by_y(old * old, w) * 2 * old
        same(x.grad, expected, why=f"{write} was run on y, which had been saved")


@claim(cites=["torch_autograd/mutation-is-allowed-for-forward-and-backward-together"], since="2.0")
@given(v=values(shapes=FILLED, layouts=WRITABLE), written=st.booleans(), fails=st.booleans(), again=st.booleans())
def spec_writes_are_allowed_inside_the_block_only(world, v, written, fails, again):
    """A graph that was made under allow_mutation_on_saved_tensors() is differentiated under the same block: after
    it was left, by an exception too, backward raises an error. Outside, a change of what is saved is noticed as
    everywhere. Such blocks can't be nested."""
    x, left = world.leaf(v), "with an exception hidden"
    try:
        with torch.autograd.graph.allow_mutation_on_saved_tensors():
            y = x * 1
            loss = (y * y).sum()
            if written:
                y.detach().zero_()
            if again:
                with raises(RuntimeError, "cannot be nested", why="there is one block already"):
                    with torch.autograd.graph.allow_mutation_on_saved_tensors():
                        pass
            if fails:
                raise ArithmeticError("on purpose")
            left = "as it ended"
    except ArithmeticError:
        left = "by an exception"
    same(left, "by an exception" if fails else "as it ended", why="the block hides no exception")

    refused = error_of(lambda: loss.backward()) or "no error"
    outside = "outside of the 'allow_mutation_on_saved_tensors' context"
    same(outside in refused, True, why=f"the block was left, and there came {refused}")
    same(x.grad, None, why="backward failed")
    z = x * 1
    square = (z * z).sum()
    z.detach().zero_()
    with raises(RuntimeError, CHANGED, why="no block allows it"):
        square.backward()
    with torch.autograd.graph.allow_mutation_on_saved_tensors():
        y = x * 1
        loss = (y * y).sum()
        y.detach().zero_()
        loss.backward()
    same(x.grad, 2 * x.detach(), why="a new block allows it again")


@claim(cites=["torch_autograd/saved-tensors-are-cloned-when-mutated"], since="2.7")
@given(v=values(shapes=FILLED, layouts=WRITABLE), w=values(shapes=FILLED, layouts=WRITABLE), zero=st.booleans())
def spec_several_saved_tensors_may_be_written_at_once_where_that_is_allowed(world, v, w, zero):
    """Under allow_mutation_on_saved_tensors() the torch._foreach_ functions can write what was saved, too."""
    x, z = world.leaf(v), world.leaf(w)
    with torch.autograd.graph.allow_mutation_on_saved_tensors():
        y, t = x * 1, z * 1
        loss = (y * y).sum() + (t * t).sum()
        if zero:
            torch._foreach_zero_([y.detach(), t.detach()])
        else:
            torch._foreach_mul_([y, t], 3)
        loss.backward()

    same([x.grad, z.grad], [2 * x.detach(), 2 * z.detach()], why="y and t were saved before they were written")


@claim(observed=True, cites=["torch_autograd/saved-tensors-are-cloned-when-mutated"], since="2.0")
@given(
    v=values(shapes=FILLED, layouts=WRITABLE),
    first=st.integers(-3, 3),
    released=st.booleans(),
    rounds=st.integers(1, 5),
)
def spec_a_tensor_in_the_place_of_a_released_one_is_taken_for_it(world, v, first, released, rounds):
    """Under allow_mutation_on_saved_tensors() saved tensors are told apart by the addresses of their Python object
    and of their memory, and by their version. Where one was written and released and another one comes to lie at
    both addresses, backward takes the numbers of the first for those of the second, without an error."""
    for _ in range(rounds):
        w, memory = world.leaf(v), torch.full_like(world.constant(v), first)
        with torch.autograd.graph.allow_mutation_on_saved_tensors():
            y = memory.data
            place = id(y)
            one = (y * w).sum()
            y.fill_(7)  # the numbers of before are kept for backward
            kept = None if released else y
            del y
            y = memory.data
            taken_for_it = id(y) == place
            other = (y * w).sum()
            (one + other).backward()
        same(taken_for_it and kept is not None, False, why="of what lives nobody takes the place")
        expected = torch.full_like(memory, first + (first if taken_for_it else 7))
        same(w.grad, expected, why="the second one lies at the same address" if taken_for_it else "they lie apart")
