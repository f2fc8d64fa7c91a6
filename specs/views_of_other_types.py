"""Views in another dtype: parts of complex numbers and conjugates, bytes, and the values of sparse tensors."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import WRITABLE, claim, raises, same, values
from .views import like, weights
from .views_in_place import row_of, source_for

FLOATS = ("float64", "float32")

# What complex tensors show: the result, and the gradient by z for a gradient by the result.
COMPLEX_VIEWS = {
    "z.real": (lambda z: z.real, lambda g: torch.complex(g, torch.zeros_like(g))),
    "z.imag": (lambda z: z.imag, lambda g: torch.complex(torch.zeros_like(g), g)),
    "torch.view_as_real(z)": (lambda z: torch.view_as_real(z), lambda g: torch.complex(g[..., 0], g[..., 1])),
    "torch.view_as_real(z)[..., 0]": (
        lambda z: torch.view_as_real(z)[..., 0],
        lambda g: torch.complex(g, torch.zeros_like(g)),
    ),
    "torch.view_as_complex(torch.view_as_real(z))": (
        lambda z: torch.view_as_complex(torch.view_as_real(z)),
        lambda g: g,
    ),
    "z.conj()": (lambda z: z.conj(), lambda g: torch.complex(g.real, -g.imag)),
    "z.conj().conj()": (lambda z: z.conj().conj(), lambda g: g),
    "z.conj().real": (lambda z: z.conj().real, lambda g: torch.complex(g, torch.zeros_like(g))),
    "z.conj().imag": (lambda z: z.conj().imag, lambda g: torch.complex(torch.zeros_like(g), -g)),
    "z.mH": (lambda z: z.mH, lambda g: torch.complex(g.real.mT, -g.imag.mT)),
    "z.H": (lambda z: z.H, lambda g: torch.complex(g.real.t(), -g.imag.t())),
    "z.adjoint()": (lambda z: z.adjoint(), lambda g: torch.complex(g.real.mT, -g.imag.mT)),
    "z.mH.mT": (lambda z: z.mH.mT, lambda g: torch.complex(g.real, -g.imag)),
}


def numbers(z):
    """The real and imaginary parts of all elements, row by row; of real elements themselves."""
    flat = z.detach().resolve_conj().reshape(-1).tolist()
    return [part for number in flat for part in ((number.real, number.imag) if z.is_complex() else (number,))]


@claim(
    cites=[
        "torch_tensor/real-and-imag-share-storage",
        "torch/view-as-real-is-a-view",
        "torch/view-as-complex-is-a-view",
        "torch/conj-is-lazy",
        "torch_tensor/h-is-conjugate-transpose",
    ],
    needs=["complex128", "complex64", "in-place", "views"],
)
@given(
    v=values(shapes=((2, 2), (1, 2), (2, 1), (2, 3)), dtypes=FLOATS, layouts=WRITABLE),
    way=st.sampled_from(list(COMPLEX_VIEWS)),
    other=st.integers(-2, 3),
)
def spec_parts_and_conjugates_of_complex_tensors_are_views(world, v, way, other):
    """Real and imaginary parts, both as a last dimension, conjugates and adjoints are views: they show writes to
    the complex tensor, and the gradient by them goes to the parts that they show, conjugated if they are."""
    x = world.constant(v)
    z = torch.complex(x, weights(x) * other).requires_grad_()
    take, pulled_back = COMPLEX_VIEWS[way]
    y = take(z)
    same([y._is_view(), y._base is z], [True, True], why="it is a view")
    cotangent = weights(y) + 1
    if y.is_complex():
        cotangent = torch.complex(weights(y).real, weights(y).real + 1)

    y.backward(cotangent)
    same(numbers(z.grad), numbers(pulled_back(cotangent)), why=f"it is {way}")

    with torch.no_grad():
        z.copy_(torch.complex(weights(x), 3 - weights(x)))
    same(numbers(y), numbers(take(torch.complex(weights(x), 3 - weights(x)))), why="it shows what was written")
    shown_now = {
        "z.real": weights(x),
        "z.imag": 3 - weights(x),
        "z.conj().imag": weights(x) - 3,
        "z.H": torch.complex(weights(x).t(), weights(x).t() - 3),
    }
    if way in shown_now:
        same(numbers(y), numbers(shown_now[way]), why="these are the parts of what was written")


# Ways to look at the same bytes as another dtype, and the dtype of x for which they are defined.
OTHER_DTYPES = {
    "x.view(x.dtype)": lambda x: x.view(x.dtype),
    "x.view(torch.int32)": lambda x: x.view(torch.int32),
    "x.view(torch.uint8)": lambda x: x.view(torch.uint8),
    "x.view(torch.int16)": lambda x: x.view(torch.int16),
    "x.view(torch.float16)": lambda x: x.view(torch.float16),
    "x.contiguous().view(torch.float32)": lambda x: x.contiguous().view(torch.float32),
}


@claim(cites=["torch_tensor/view-as-dtype-has-the-same-data"], needs=["float16", "in-place", "views"])
@given(
    v=values(shapes=((1,), (3,), (2, 3), (2, 1)), layouts=("contiguous", "offset")),
    way=st.sampled_from(list(OTHER_DTYPES)),
)
def spec_a_view_of_another_dtype_shares_the_bytes_but_no_history(world, v, way):
    """x.view(dtype) lies in the memory of x, with a last dimension as long as the dtype's size makes it. It never
    requires grad, not even as the dtype that x has, and no gradient goes through it."""
    x = world.leaf(v)

    y = OTHER_DTYPES[way](x)

    same((y * 1).requires_grad, False, why=f"{way} is cut off from x")
    same([y.requires_grad, y.is_leaf, y.grad_fn], [False, True, None], why=f"{way} is cut off from x")
    longer = x.element_size() * x.size(-1) // y.element_size()
    same(list(y.shape), [*x.shape[:-1], longer], why="the bytes of a row are as many as they were")
    same(y.data_ptr(), x.data_ptr(), why="no data moves")
    y.zero_()
    same(x, torch.zeros_like(x).detach(), why="y was zeroed, and that is x")


# Writes to a view of the complex tensor y: what they make of the parts a + bi and the number s of a real source; and
# the gradients by a, by b and by s, for the gradients g and h by the new parts.
COMPLEX_WRITES = {
    "y.real.mul_(3)": (lambda y, s: y.real.mul_(3), lambda a, b, s: (3 * a, b), lambda g, h, s, a, b: (3 * g, h, 0)),
    "y.imag.copy_(s)": (lambda y, s: y.imag.copy_(s), lambda a, b, s: (a, s), lambda g, h, s, a, b: (g, 0, h)),
    "y.real = s": (lambda y, s: setattr(y, "real", s), lambda a, b, s: (s, b), lambda g, h, s, a, b: (0, h, g)),
    "y.imag = s": (lambda y, s: setattr(y, "imag", s), lambda a, b, s: (a, s), lambda g, h, s, a, b: (g, 0, h)),
    "torch.view_as_real(y)[..., 1].mul_(s)": (
        lambda y, s: torch.view_as_real(y)[..., 1].mul_(s),
        lambda a, b, s: (a, b * s),
        lambda g, h, s, a, b: (g, h * s, h * b),
    ),
    "torch.view_as_real(y).mul_(-2)": (
        lambda y, s: torch.view_as_real(y).mul_(-2),
        lambda a, b, s: (-2 * a, -2 * b),
        lambda g, h, s, a, b: (-2 * g, -2 * h, 0),
    ),
    "y.conj().mul_(2j)": (
        lambda y, s: y.conj().mul_(2j),
        lambda a, b, s: (2 * b, -2 * a),  # the conjugate of 2i(a - bi)
        lambda g, h, s, a, b: (-2 * h, 2 * g, 0),
    ),
    "y.conj().imag.copy_(s)": (
        lambda y, s: y.conj().imag.copy_(s),
        lambda a, b, s: (a, -s),
        lambda g, h, s, a, b: (g, 0, -h),
    ),
    "y.mH.add_(s.mT)": (
        lambda y, s: y.mH.add_(s.mT),
        lambda a, b, s: (a + s, b),
        lambda g, h, s, a, b: (g, h, g),
    ),
    "y.mul_(s)": (
        lambda y, s: y.mul_(s),
        lambda a, b, s: (a * s, b * s),
        lambda g, h, s, a, b: (g * s, h * s, g * a + h * b),
    ),
    "y.mT[...] = s.mT": (
        lambda y, s: y.mT.__setitem__(..., s.mT),
        lambda a, b, s: (s, 0 * s),
        lambda g, h, s, a, b: (0, 0, g),
    ),
}


@claim(
    cites=["torch_tensor/real-and-imag-share-storage", "torch/view-as-real-is-a-view", "torch/conj-is-lazy"],
    needs=["complex128", "complex64", "in-place", "views"],
)
@given(
    v=values(shapes=((2, 2), (1, 2), (2, 3))),
    imaginary=values(shapes=((2, 3),)),
    way=st.sampled_from(list(COMPLEX_WRITES)),
    early=st.booleans(),
)
def spec_a_write_to_parts_of_complex_numbers_is_recorded(world, v, imaginary, way, early):
    """A write to real or imaginary parts, or to conjugates, is a write to the complex tensor, and gradients go to what
    was written and to the parts that were not."""
    x = world.constant(v)
    parts = [x, world.constant(imaginary)[: x.size(0), : x.size(1)].to(x.dtype)]
    z = torch.complex(*parts).requires_grad_()
    y = z * 1
    seen, s = torch.view_as_real(y), source_for(x, 2)
    write, rule, pulled_back = COMPLEX_WRITES[way]

    write(y, s)

    triples = [row_of(part) for part in (*parts, s)]
    expected = [rule(a, b, number) for a, b, number in zip(*triples)]
    pairs = torch.view_as_real(y).detach()
    same(pairs, like(pairs, [part for pair in expected for part in pair]), why=f"{way} was carried out")
    root = seen if early else torch.view_as_real(y)
    root.backward(weights(root.detach()))
    flowing = row_of(weights(root.detach()))
    expected = [pulled_back(flowing[2 * i], flowing[2 * i + 1], number, a, b)
                for i, (a, b, number) in enumerate(zip(*triples))]  # fmt: skip
    by_parts = [part for by_a, by_b, _ in expected for part in (by_a, by_b)]
    same(torch.view_as_real(z.grad), like(pairs, by_parts), why=f"{way} was carried out")
    by_s = [by for _, _, by in expected]
    same(torch.zeros_like(x) if s.grad is None else s.grad, like(x, by_s), why=f"{way} was carried out")


@claim(observed=True, needs=["float64", "complex128", "in-place", "views"])
@given(
    v=values(shapes=((), (1,), (2,)), layouts=("contiguous",)),
    index=st.sampled_from(["0:", "..."]),
    copied=st.booleans(),
)
def spec_a_real_number_assigned_to_a_slice_of_complex_ones_has_no_gradient(world, v, index, copied):
    """If a real tensor of no dimensions on the CPU is assigned to a slice of a complex tensor, backward is an error;
    with copy_ in place of the assignment, or a tensor that has dimensions, it is not."""
    x = world.constant(v).cpu().requires_grad_()
    c = torch.ones(2, dtype=torch.complex128, device=world.device)
    where = slice(0, None) if index == "0:" else ...
    if copied:
        c[where].copy_(x)
    else:
        c[where] = x
    same(c.real.detach().cpu(), x.detach().to(torch.float64).expand(2), why="the numbers are right")

    if copied or x.dim():
        c.real.sum().backward()
        same(
            x.grad,
            torch.full_like(x, 2 // x.numel()).detach(),
            why="each number of x counts as often as it was written",
        )
    else:
        with raises(RuntimeError, "isFloatingType", "complex", why="x has no dimensions"):
            c.real.sum().backward()
        same(x.grad, None, why="backward failed")


@claim(cites=["tensor_views/sparse-indices-and-values-are-views"], needs=["in-place", "views", "sparse"])
@given(
    v=values(shapes=((3,), (2, 2), (2, 3), (1,)), layouts=("contiguous",), dtypes=("float64",)),
    factor=st.integers(-2, 3),
)
def spec_the_values_of_a_sparse_tensor_are_a_view_of_it(world, v, factor):
    """The values() of a coalesced sparse tensor are a view of it, through which gradients go and writes show; its
    indices() lie in its memory, too."""
    x = world.leaf(v)
    before, rows = x.detach().clone(), torch.ones_like(x, dtype=torch.bool).nonzero().t()
    sparse = torch.sparse_coo_tensor(rows, x.reshape(-1), x.shape).coalesce()

    stored = sparse.values()
    same([stored._is_view(), stored._base is sparse], [True, True], why="values() is a view")
    same(stored, x.detach().reshape(-1), why="all elements are stored")
    same(sparse.indices().data_ptr(), sparse.indices().data_ptr(), why="the indices are not copied")
    same(sparse.indices(), rows, why="all elements are stored")
    (stored * weights(stored)).sum().backward()
    same(x.grad, weights(x), why="x gave the values")

    with torch.no_grad():
        sparse.detach().values().mul_(factor)
    same(sparse.detach().to_dense(), before * factor, why="its values were written")
