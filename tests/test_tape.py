"""The reference model against first principles: sums over paths, and differences of exact polynomials."""

import random
from pathlib import Path

import pytest

from specs.tape.arrays import (
    Array,
    broadcast_shape,
    elementwise,
    indexes,
    matmul,
    running_sum,
    sum_over,
)
from specs.tape.autograd import Tape
from specs.tape.scalars import Complex, Scalar, gradients, number_of
from specs.tape.statements import Refused, Statement


def sum_over_paths(root, source):
    """The derivative as the sum, over all paths from root to source, of the products of local derivatives."""
    if root is source:
        return 1
    return sum(number_of(local) * sum_over_paths(parent, source) for parent, local in root.parents)


def grown(seed, numbers):
    """A random polynomial over the numbers, built of sums, products and multiples, and its inputs."""
    choose = random.Random(seed)
    inputs = [Scalar(number) for number in numbers]
    scalars = list(inputs)
    for _ in range(8):
        a, b = choose.choice(scalars), choose.choice(scalars)
        scalars.append(choose.choice([lambda a, b: a + b, lambda a, b: a * b, lambda a, _: a.times(-3)])(a, b))
    return scalars[-1], inputs


@pytest.mark.parametrize("seed", range(40))
def test_the_chain_rule_is_the_sum_over_all_paths(seed):
    root, inputs = grown(seed, (2, -3, 5))
    derivative = gradients([(root, 7)])
    for source in inputs:
        assert derivative.get(source, 0) == 7 * sum_over_paths(root, source)


@pytest.mark.parametrize("seed", range(40))
def test_the_derivative_is_the_slope_of_the_polynomial(seed):
    """In integers modulo h*h, f(x + h) is f(x) + f'(x) h: Taylor's theorem without a limit."""
    h = 10**40
    root, inputs = grown(seed, (2, -3, 5))
    derivative = gradients([(root, 1)])
    for position, source in enumerate(inputs):
        moved = [2, -3, 5]
        moved[position] += h
        difference = (grown(seed, moved)[0].number - root.number) % (h * h)
        assert difference == derivative.get(source, 0) * h % (h * h)


def test_several_roots_are_weighted_and_added():
    x = Scalar(3)
    assert gradients([(x * x, 2), (x, 5), (x, -1)])[x] == 2 * 6 + 5 - 1


def test_a_long_chain_needs_no_deep_recursion():
    x = y = Scalar(1)
    for _ in range(20_000):
        y = y + x
    assert gradients([(y, 1)])[x] == 20_001


def test_arrays_are_read_row_by_row():
    a = Array.of((2, 3), range(6))
    assert a[1, 2].number == 5
    assert a.gather((3, 2), lambda i, j: (j, i)).numbers == (0, 3, 1, 4, 2, 5)
    assert list(indexes((2, 2))) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert list(indexes(())) == [()]


@pytest.mark.parametrize(
    ("a", "b", "shape"),
    [
        ((), (), ()),
        ((2,), (), (2,)),
        ((2, 1), (3,), (2, 3)),
        ((0,), (1,), (0,)),
        ((1, 3), (2, 1), (2, 3)),
        ((2,), (3,), None),
        ((0,), (2,), None),
    ],
)
def test_shapes_broadcast_as_they_do_in_numpy(a, b, shape):
    assert broadcast_shape(a, b) == shape


def test_operations_on_arrays_by_hand():
    a, b = Array.of((2, 2), (1, 2, 3, 4)), Array.of((2,), (10, 100))
    assert elementwise(lambda x, y: x * y)(a, b).numbers == (10, 200, 30, 400)
    assert matmul(a, a).numbers == (7, 10, 15, 22)
    assert matmul(a, b).numbers == (210, 430)
    assert matmul(b, a).numbers == (310, 420)
    assert matmul(a, Array.of((3, 1), (1, 1, 1))) is None
    assert sum_over(a, 0).numbers == (4, 6)
    assert sum_over(a, 1).numbers == (3, 7)
    assert running_sum(a).numbers == (1, 2, 4, 6)


def test_derivatives_that_are_scalars_can_be_differentiated_again():
    x, y = Scalar(3), Scalar(-2)
    z = x * x * x * y
    first = gradients([(z, 1)], differentiable=True)
    assert (first[x].number, first[y].number) == (3 * 9 * -2, 27)
    second = gradients([(first[x], 1)])
    assert (second[x], second[y]) == (6 * 3 * -2, 27)
    third = gradients([(gradients([(first[x], 1)], differentiable=True)[x], 1)])
    assert third[x] == 6 * -2


def test_what_passes_a_scalar_goes_on_in_place_of_its_derivative():
    x = Scalar(2)
    y = x * x
    z = y.times(5)
    seen = []
    derivative = gradients([(z, 1)], {y: lambda d: seen.append(d) or d * 10})
    assert seen == [5]
    assert (derivative[y], derivative[x]) == (50, 200)


def test_complex_gradients_are_those_of_the_two_parts():
    """For the real number |z|^2 the derivatives by the parts of z = 3 + 4i are 6 and 8; for the real part of z * z
    they are 6 and -8."""
    re, im = Scalar(3), Scalar(4)
    z = Complex(re, im)
    norm = z * z.conjugate()
    derivative = gradients([(norm.real, 1)])
    assert (norm.real.number, norm.imag.number, derivative[re], derivative[im]) == (25, 0, 6, 8)
    square = gradients([((z * z).real, 1)])
    assert (square[re], square[im]) == (6, -8)
    mixed = Scalar(2) * z + Scalar(1)
    assert (mixed.real.number, mixed.imag.number) == (7, 8)


def statement(does, makes=(), of=(), options=()):
    return Statement(does, tuple(makes), tuple(of), tuple(options))


def tape_after(*statements):
    """The tape after these statements, of which none may raise."""
    tape = Tape()
    for each in statements:
        plan = tape.plan(each)
        assert not plan.errors, (each, plan.errors)
        plan.carry_out(False)
    return tape


A_LEAF = statement("leaf", "a", (), ["float64", (2,), (1, 2), True])


def test_a_write_to_a_view_gives_the_whole_family_a_new_node():
    tape = tape_after(
        A_LEAF,
        statement("clone", "b", "a"),
        statement("row", "c", "b", [0]),
        statement("neg_", (), "c"),
        statement("backward", (), "b", [1, ((1, 1),), False, False]),
    )
    b = tape.tensors["b"]
    assert (b.numbers, b.family.counter.version, tape.tensors["a"].grad.numbers) == ([-1, 2], 1, [-1, 1])


def test_a_write_to_what_was_kept_may_be_an_error_and_elsewhere_may_not():
    kept = [A_LEAF, statement("square", "b", "a"), statement("enter", (), (), ["no_grad"])]
    backward = statement("backward", (), "b", [1, ((1, 1),), False, False])
    plan = tape_after(*kept, statement("neg_", (), "a"), statement("leave")).plan(backward)
    assert plan.errors
    assert not plan.surely
    assert not tape_after(*kept, statement("neg_", (), "b"), statement("leave")).plan(backward).errors


def test_a_freed_graph_is_an_error_only_where_something_was_kept():
    once = statement("backward", (), "b", [1, ((1, 1),), False, False])
    squared = tape_after(A_LEAF, statement("square", "b", "a"), once).plan(once)
    assert squared.surely
    assert not tape_after(A_LEAF, statement("neg", "b", "a"), once).plan(once).errors


def test_a_failed_backward_leaves_gradients_unknown_until_they_are_cleared():
    tape = tape_after(A_LEAF, statement("square", "b", "a"))
    tape.plan(statement("backward", (), "b", [1, ((1, 1),), False, False])).carry_out(True)
    assert not tape.tensors["a"].grad_known
    with pytest.raises(Refused):
        tape.plan(statement("neg", "c", ["a.grad"]))
    tape.plan(statement("clear_grad", (), "a")).carry_out(False)
    assert tape.tensors["a"].grad_known


def test_the_tape_knows_nothing_of_torch():
    for path in (Path(__file__).parents[1] / "specs" / "tape").glob("*.py"):
        assert "import torch" not in path.read_text(encoding="utf-8")
