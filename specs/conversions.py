"""Out of the graph and into it: numbers, lists and arrays of tensors, and tensors of these."""

import pickle

import numpy
import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import SMALL_DTYPES, WRITABLE, claim, raises, same, values, warns

SOURCES = {  # tensors with the values of x that require grad
    "x": lambda x: x,
    "x * 1": lambda x: x * 1,
    "x[...]": lambda x: x[...],
    "torch.stack([x, x]).unbind()[1]": lambda x: torch.stack([x, x]).unbind()[1],
    "torch.nn.Parameter(x)": lambda x: torch.nn.Parameter(x),
}
ANY_SOURCE = st.sampled_from(list(SOURCES))
DIFFERENTIABLE = st.sampled_from(["x", "x * 1", "x[...]", "torch.stack([x, x]).unbind()[1]"])
ASKED = st.sampled_from([None, False, True])
ONE_ELEMENT = ((), (1,), (1, 1))

NUMBERS = {  # ways to a Python number, and what number that is of a number
    "t.reshape(()).tolist()": (lambda t: t.reshape(()).tolist(), float),
    "t.item()": (lambda t: t.item(), float),
    "float(t)": (lambda t: float(t), float),
    "int(t)": (lambda t: int(t), int),
    "bool(t)": (lambda t: bool(t), bool),
    "complex(t)": (lambda t: complex(t), complex),
    "torch.is_nonzero(t)": (lambda t: torch.is_nonzero(t), bool),
    "t.detach().item()": (lambda t: t.detach().item(), float),
}


@claim(cites=["torch_tensor/item-is-not-differentiable"])
@given(v=values(shapes=ONE_ELEMENT, dtypes=SMALL_DTYPES), code=st.sampled_from(list(NUMBERS)), source=DIFFERENTIABLE)
def spec_a_number_taken_from_a_tensor_is_a_constant(world, v, code, source):
    """item() and Python's conversions give a Python number of a tensor of one element, whether it requires grad or
    not. The number is a constant: what is computed with it sends no gradient back, and the graph is as it was."""
    x = world.leaf(v)
    t = SOURCES[source](x)
    way, kind = NUMBERS[code]
    node, version = t.grad_fn, t._version

    number = way(t)

    same([type(number), number], [kind, kind(world.constant(v).reshape(()).tolist())], why=f"it is {code}")
    same([t.grad_fn is node, t._version, t.requires_grad], [True, version, True], why="it was only read")
    (t * 2 * number.real).sum().backward()
    same(x.grad, torch.full_like(x, 2 * number.real), why=f"{code} is a constant factor")


SHAPES_OF_MORE = ((2,), (2, 3), (1, 3), (0,), (2, 0), (3, 2, 2))


@claim(cites=["torch_tensor/item-needs-one-element"])
@given(
    v=values(shapes=SHAPES_OF_MORE),
    code=st.sampled_from(["t.item()", "float(t)", "int(t)", "bool(t)"]),
    source=ANY_SOURCE,
)
def spec_only_a_tensor_of_one_element_is_a_number(world, v, code, source):
    """A tensor of more than one element, or of none, has no number: item() and Python's conversions raise an error
    and leave it as it was."""
    x = world.leaf(v)
    t = SOURCES[source](x)

    # A RuntimeError or a ValueError, from function to function and from release to release.
    with raises(Exception, "one element", "cannot be converted", "ambiguous", why=f"its shape is {tuple(x.shape)}"):
        NUMBERS[code][0](t)

    same([t.requires_grad, t], [True, world.constant(v)], why="it was only read")


@claim(cites=["torch_tensor/tolist-is-not-differentiable"])
@given(v=values(dtypes=SMALL_DTYPES), source=ANY_SOURCE)
def spec_tolist_gives_numbers_in_nested_lists(world, v, source):
    """tolist() gives the elements as Python numbers in nested lists, or as a single number, whether the tensor requires
    grad or not. A tensor that is made of them has no history."""
    x = world.leaf(v)
    t = SOURCES[source](x)

    numbers = t.tolist()

    flat = [numbers]
    for size in t.shape:
        same([type(part) for part in flat], [list] * len(flat), why="there is a list for each dimension")
        same([len(part) for part in flat], [size] * len(flat), why="there is a list for each index")
        flat = [one for part in flat for one in part]
    same([type(one) for one in flat], [float] * t.numel(), why="inside are Python numbers")
    again = torch.tensor(numbers, dtype=t.dtype, device=t.device).reshape(t.shape)
    same(again, t, why="these are its values")
    same([again.requires_grad, again.grad_fn, t.requires_grad], [False, None, True], why="numbers have no history")


ARRAYS = {
    "t.numpy()": lambda t: t.numpy(),
    "t.numpy(force=False)": lambda t: t.numpy(force=False),
    "numpy.asarray(t)": lambda t: numpy.asarray(t),
    "t.__array__()": lambda t: t.__array__(),
}


@claim(cites=["torch_tensor/numpy-refuses-what-requires-grad"])
@given(v=values(dtypes=("float64", "float32", "float16")), code=st.sampled_from(list(ARRAYS)), source=ANY_SOURCE)
def spec_numpy_refuses_a_tensor_that_requires_grad(world, v, code, source):
    """In grad mode numpy() raises an error for a tensor that requires grad, be it a leaf or a result, and so does what
    NumPy makes of it. The error tells to detach the tensor, which is as it was, and so is its graph."""
    x = world.constant(v).cpu().requires_grad_()
    t = SOURCES[source](x)
    node, version = t.grad_fn, t._version

    with raises(RuntimeError, "detach().numpy()", why=f"{source} requires grad"):
        ARRAYS[code](t)

    same([t.requires_grad, t.grad_fn is node, t._version], [True, True, version], why="it was refused")
    same(ARRAYS[code](t.detach()).tolist(), world.constant(v).tolist(), why="that is what the error tells to do")
    (t * 2).sum().backward()
    leaf = t if t.is_leaf else x
    same(leaf.grad, torch.full_like(leaf, 2).detach(), why="the graph is whole")


@claim(cites=["torch_tensor/numpy-refuses-what-requires-grad"])
@given(
    v=values(dtypes=("float64", "float32", "float16")),
    code=st.sampled_from(list(ARRAYS)),
    source=ANY_SOURCE,
    inference=st.booleans(),
)
def spec_without_grad_mode_numpy_takes_a_tensor_that_requires_grad(world, v, code, source, inference):
    """In no-grad mode and inference mode numpy() takes a tensor that requires grad: the array shares its memory."""
    t = SOURCES[source](world.constant(v).cpu().requires_grad_())

    with torch.inference_mode() if inference else torch.no_grad():
        array = ARRAYS[code](t)

    same(array.tolist(), world.constant(v).tolist(), why="these are the values of t")
    if t.numel():
        same(array.__array_interface__["data"][0], t.data_ptr(), why="it is the same memory")
    with raises(RuntimeError, "detach().numpy()", why="grad mode is on again"):
        ARRAYS[code](t)


@claim(cites=["torch_tensor/numpy-shares-storage"])
@given(
    v=values(dtypes=("float64", "float32", "float16"), layouts=WRITABLE),
    source=ANY_SOURCE,
    force=st.booleans(),
    number=st.integers(-4, 4),
)
def spec_an_array_shares_the_memory_of_the_tensor(world, v, source, force, number):
    """The array that numpy() gives of a detached tensor in the memory of the CPU, or with force=True of one that
    requires grad, is the same memory: each shows what is written into the other."""
    t = SOURCES[source](world.constant(v).cpu().requires_grad_())

    array = t.numpy(force=True) if force else t.detach().numpy()

    same(array.shape, tuple(t.shape), why="it has the shape of t")
    array[...] = number
    same(t, torch.full_like(t, number).detach(), why="the array was written to")
    with torch.no_grad():
        t.fill_(number + 1)
    same(array.tolist(), torch.full_like(t, number + 1).tolist(), why="the tensor was written to")


@claim(observed=True)
@given(v=values(dtypes=("float64", "float32"), layouts=WRITABLE), number=st.integers(-4, 4), force=st.booleans())
def spec_autograd_does_not_notice_what_is_written_to_an_array(world, v, number, force):
    """What is written into the array of a tensor leaves the tensor's version as it is: if backward saved the tensor,
    it computes with the new values, without an error."""
    x = world.constant(v).cpu().requires_grad_()
    y = x * x
    version = x._version

    array = x.numpy(force=True) if force else x.detach().numpy()
    array[...] = number

    same(x._version, version, why="NumPy doesn't know of versions")
    y.sum().backward()
    same(x.grad, torch.full_like(x, 2 * number).detach(), why=f"x is {number} now")


COMPLEX = {
    "c.conj()": lambda c: c.conj(),
    "c.conj().imag": lambda c: c.conj().imag,
    "c.conj()[...]": lambda c: c.conj()[...],
    "torch.view_as_real(c.conj()).neg()": lambda c: torch.view_as_real(c.conj().resolve_conj()).neg(),
    "c * 1": lambda c: c * 1,
}


@claim(
    cites=["torch_tensor/numpy-with-force", "torch_tensor/numpy-refuses-what-requires-grad"],
    needs=["float64", "complex128"],
)
@given(v=values(), code=st.sampled_from(list(COMPLEX)), required=st.booleans(), enabled=st.booleans())
def spec_numpy_with_force_does_what_it_takes(world, v, code, required, enabled):
    """numpy(force=True) gives of any strided tensor, also one that requires grad or whose values are stored conjugated
    or negated, the array that detach(), cpu(), resolve_conj(), resolve_neg() and numpy() give. The array is a copy
    where the values are stored so; without force such a tensor is refused."""
    real = world.constant(v).double()
    t = COMPLEX[code](torch.complex(real, real + 1).requires_grad_(required))

    with torch.set_grad_enabled(enabled):
        array = t.numpy(force=True)

    expected = t.detach().cpu().resolve_conj().resolve_neg()
    same(array.tolist(), expected.tolist(), why=f"it is of {code}")
    if t.is_conj() or t.is_neg():
        there = COMPLEX[code](torch.complex(real, real + 1).cpu())  # t.cpu() may write down what is stored so
        with raises(RuntimeError, "numpy()", why="it isn't stored as NumPy would read it"):
            there.numpy()
        array[...] = 7
        same(t.detach().cpu().resolve_conj().resolve_neg(), expected, why="the array is a copy")
    same(t.requires_grad, required, why="it was only read")


TO_CONSTANT = {  # a tensor with the values of t, by way of things that are no tensors
    "t.item()": lambda t: torch.stack([t.new_tensor(one.item()) for one in t.reshape(-1).unbind()]).reshape(t.shape),
    "t.tolist()": lambda t: torch.tensor(t.tolist(), dtype=t.dtype, device=t.device).reshape(t.shape),
    "torch.from_numpy": lambda t: torch.from_numpy(t.detach().cpu().numpy()).to(t.device),
    "torch.as_tensor(array)": lambda t: torch.as_tensor(t.numpy(force=True), device=t.device),
    "pickle": lambda t: pickle.loads(pickle.dumps(t.detach())),
    "torch.from_dlpack": lambda t: torch.from_dlpack(t.detach().cpu()).to(t.device),
}


@claim(cites=["torch_tensor/item-is-not-differentiable", "torch/tensor-has-no-history"])
@given(
    v=values(shapes=((), (1,), (2,), (2, 3), (3, 2)), layouts=("contiguous", "offset", "transposed")),
    code=st.sampled_from(list(TO_CONSTANT)),
    source=DIFFERENTIABLE,
    asked=st.booleans(),
)
def spec_no_gradient_flows_through_what_is_no_tensor(world, v, code, source, asked):
    """A tensor that is made of numbers, a list, an array or a file is a leaf that doesn't require grad, wherever its
    values came from. If it is told to require grad, gradients end there."""
    x = world.leaf(v)
    t = SOURCES[source](x)

    y = TO_CONSTANT[code](t)

    same([y, y.requires_grad, y.is_leaf, y.grad_fn], [t, False, True, None], why=f"it is made by {code}")
    y.requires_grad_(asked)
    (y * 3 + t * 2).sum().backward()
    same(x.grad, torch.full_like(x, 2).detach(), why="the gradient of 2t")
    same(y.grad, torch.full_like(y, 3).detach() if asked else None, why="the gradient of 3y")


COPIES = {
    "torch.tensor(t)": lambda t, **how: torch.tensor(t, **how),
    "t.new_tensor(t)": lambda t, **how: t.new_tensor(t, **how),
}


@claim(cites=["torch/tensor-has-no-history", "torch/tensor-of-a-tensor-is-a-detached-clone"])
@given(
    v=values(dtypes=SMALL_DTYPES),
    code=st.sampled_from(list(COPIES)),
    source=DIFFERENTIABLE,
    asked=st.sampled_from([None, False, True]),
)
def spec_torch_tensor_of_a_tensor_is_a_leaf_with_a_copy(world, v, code, source, asked):
    """torch.tensor(t) and new_tensor(t) make of a tensor t a leaf with a copy of its values, without its history; it
    requires grad only if that is asked for. A warning says that detach() and clone() say this more clearly."""
    x = world.leaf(v)
    t = SOURCES[source](x)

    with warns(UserWarning, "copy construct", why=f"{code} is given a tensor"):
        y = COPIES[code](t) if asked is None else COPIES[code](t, requires_grad=asked)

    same([y.requires_grad, y.is_leaf, y.grad_fn], [bool(asked), True, None], why=f"requires_grad was {asked}")
    same(y, t, why="it is a copy")
    (y * 3 + t * 2).sum().backward()
    same(x.grad, torch.full_like(x, 2).detach(), why="the gradient of 2t")
    same(y.grad, torch.full_like(y, 3).detach() if asked else None, why="the gradient of 3y")
    with torch.no_grad():
        y.fill_(7)
    same(t, world.constant(v), why="the copy has its own memory")


@claim(cites=["torch/as-tensor-keeps-history"], needs=["float64", "float16"])
@given(
    v=values(),
    source=DIFFERENTIABLE,
    dtype=st.sampled_from([None, torch.float64, torch.float32, torch.float16, torch.int64]),
)
def spec_as_tensor_keeps_the_history(world, v, source, dtype):
    """torch.as_tensor gives a tensor of the dtype asked for back as it is. Of one of another floating dtype it makes a
    copy with a history: gradients flow through it."""
    x = world.leaf(v)
    t = SOURCES[source](x)

    y = torch.as_tensor(t) if dtype is None else torch.as_tensor(t, dtype=dtype)

    same(y is t, dtype in (None, t.dtype), why=f"it is {t.dtype}, and {dtype} was asked for")
    same(y, t.detach().to(dtype or t.dtype), why="it has the values of t")
    same(y.requires_grad, dtype != torch.int64, why="integers have no gradient")
    if y.requires_grad:
        (y * 2).sum().backward()
        same(x.grad, torch.full_like(x, 2).detach(), why="the gradient flows through it")


@claim(cites=["torch/asarray-takes-requires-grad"])
@given(v=values(), source=DIFFERENTIABLE, asked=st.booleans(), copied=st.booleans())
def spec_asarray_keeps_the_history_if_told_to(world, v, source, asked, copied):
    """torch.asarray of a result, or with copy=True of any tensor, keeps the history with requires_grad=True; with
    requires_grad=False it gives a detached tensor and leaves the one that it was given as it is."""
    x = world.leaf(v)
    t = SOURCES["x * 1" if source == "x" and not copied else source](x)

    y = torch.asarray(t, copy=True if copied else None, requires_grad=asked)

    same([y, y.requires_grad, t.requires_grad], [t, asked, True], why=f"requires_grad was {asked}")
    (y * 3 + t * 2).sum().backward()
    same(x.grad, torch.full_like(x, 5 if asked else 2).detach(), why="that of 2t, and of 3y if it has a history")


@claim(observed=True)
@given(v=values(), required=st.booleans(), asked=st.booleans(), parameter=st.booleans())
def spec_asarray_changes_the_leaf_that_it_is_given(world, v, required, asked, parameter):
    """torch.asarray of a leaf, without a copy, gives the leaf itself, and requires_grad, if it is passed, changes the
    flag of that: a parameter so loses its requires_grad."""
    x = world.constant(v).requires_grad_(required)
    x = torch.nn.Parameter(x, requires_grad=required) if parameter else x

    y = torch.asarray(x, requires_grad=asked)

    same([y is x, x.requires_grad], [True, asked], why=f"requires_grad was {required}, and {asked} was passed")


@claim(observed=True, cites=["torch/asarray-takes-requires-grad"], until="2.12")
@given(v=values(), source=DIFFERENTIABLE, copied=st.booleans())
def spec_asarray_detaches_by_default(world, v, source, copied):
    """torch.asarray of a tensor doesn't require grad unless that is asked for. Of a leaf, without a copy, it gives
    the leaf itself, and so turns off its requires_grad."""
    t = SOURCES[source](world.leaf(v))

    y = torch.asarray(t, copy=True) if copied else torch.asarray(t)

    same([y, y.requires_grad, y.grad_fn], [t, False, None], why="requires_grad is False by default")
    itself = source == "x" and not copied
    same([y is t, t.requires_grad], [itself, not itself], why=f"{source} was {'' if copied else 'not '}copied")


@claim(cites=["torch/asarray-takes-requires-grad"], since="2.13")
@given(v=values(), source=DIFFERENTIABLE, copied=st.booleans())
def spec_asarray_keeps_the_history_by_default(world, v, source, copied):
    """torch.asarray of a tensor gives the tensor itself, or a copy of it through which gradients flow, unless
    requires_grad=False is passed."""
    x = world.leaf(v)
    t = SOURCES[source](x)

    y = torch.asarray(t, copy=True) if copied else torch.asarray(t)

    same([y, y.requires_grad, t.requires_grad], [t, True, True], why="requires_grad is that of the tensor")
    same(y is t, not copied, why="a copy was asked for, or it was not")
    (y * 3 + t * 2).sum().backward()
    same(x.grad, torch.full_like(x, 5).detach(), why="the gradient of 3y and of 2t")


FROM_NUMBERS = {
    "torch.full((2,), n)": lambda n: torch.full((2,), n),
    "torch.full_like(n, n)": lambda n: torch.full_like(n, n),
    "torch.scalar_tensor(n)": lambda n: torch.scalar_tensor(n),
    "torch.arange(n)": lambda n: torch.arange(n),
    "n.new_full((2,), n)": lambda n: n.new_full((2,), n),
}


@claim(observed=True)
@given(v=values(shapes=((), (1,))), code=st.sampled_from(list(FROM_NUMBERS)), source=DIFFERENTIABLE)
def spec_a_tensor_that_requires_grad_is_no_number(world, v, code, source):
    """Where a function takes a number only, a tensor of one element that requires grad raises an error rather than
    lose its history."""
    x = world.leaf(v)
    t = SOURCES[source](x).reshape(())

    with raises(TypeError, "must be Number, not Tensor", "must be Number", why=f"{code} takes numbers"):
        FROM_NUMBERS[code](t)

    (t * 2).sum().backward()
    same(x.grad, torch.full_like(x, 2).detach(), why="the graph is whole")


@claim(observed=True, since="2.2")
@given(ends=st.tuples(values(shapes=((),)), values(shapes=((),))), required=st.integers(1, 3), log=st.booleans())
def spec_linspace_loses_the_history_of_its_ends(world, ends, required, log):
    """torch.linspace and torch.logspace take tensors for their ends but are not recorded: the result doesn't require
    grad, without a word, though an end does."""
    start, end = (world.constant(v).requires_grad_(bool(required >> i & 1)) for i, v in enumerate(ends))

    y = (torch.logspace if log else torch.linspace)(start, end, 2, dtype=start.dtype, device=world.device)

    same([y.requires_grad, y.grad_fn], [False, None], why=f"requires_grad of the ends: {required:02b}")


@claim(cites=["torch_tensor/dlpack-refuses-what-requires-grad"], until="2.9", needs=["dlpack"])
@given(v=values(), source=ANY_SOURCE, enabled=st.booleans())
def spec_dlpack_refuses_a_tensor_that_requires_grad_with_a_runtime_error(world, v, source, enabled):
    """A tensor that requires grad isn't exported by DLPack, in whatever grad mode: the RuntimeError
    tells to detach it."""
    t = SOURCES[source](world.leaf(v))
    with torch.set_grad_enabled(enabled):
        with raises(RuntimeError, "detach()", why="it requires grad"):
            torch.from_dlpack(t)
        y = torch.from_dlpack(t.detach())

    same([y, y.requires_grad, t.requires_grad], [t, False, True], why="that is what the error tells to do")


@claim(cites=["torch_tensor/dlpack-refuses-what-requires-grad"], since="2.9", needs=["dlpack"])
@given(v=values(), source=ANY_SOURCE, enabled=st.booleans())
def spec_dlpack_refuses_a_tensor_that_requires_grad(world, v, source, enabled):
    """A tensor that requires grad isn't exported by DLPack, in whatever grad mode: the BufferError
    tells to detach it."""
    t = SOURCES[source](world.leaf(v))
    with torch.set_grad_enabled(enabled):
        with raises(BufferError, "detach()", why="it requires grad"):
            torch.from_dlpack(t)
        y = torch.from_dlpack(t.detach())

    same([y, y.requires_grad, t.requires_grad], [t, False, True], why="that is what the error tells to do")
