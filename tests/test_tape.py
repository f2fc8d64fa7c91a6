"""The reference model against first principles: sums over paths, and differences of exact polynomials."""

import random

import pytest

from specs.tape.scalars import (
    Array,
    Scalar,
    broadcast_shape,
    elementwise,
    gradients,
    indexes,
    matmul,
    running_sum,
    sum_over,
)


def sum_over_paths(root, source):
    """The derivative as the sum, over all paths from root to source, of the products of local derivatives."""
    if root is source:
        return 1
    return sum(local * sum_over_paths(parent, source) for parent, local in root.parents)


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
