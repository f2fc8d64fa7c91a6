"""Copies, files and print-outs of tensors: what of the graph goes into them."""

import copy
import io
import pickle
from multiprocessing.reduction import ForkingPickler

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import SMALL_DTYPES, WRITABLE, claim, raises, same, values, warns
from .kit.nodes import Twice

LEAVES = {
    "x": lambda x: x.requires_grad_(),
    "a constant": lambda x: x,
    "torch.nn.Parameter(x)": lambda x: torch.nn.Parameter(x),
    "a frozen Parameter": lambda x: torch.nn.Parameter(x, requires_grad=False),
    "(x * 1).detach()": lambda x: (x.requires_grad_() * 1).detach(),
}
RESULTS = {  # with the values of x
    "x * 1": lambda x: x * 1,
    "x[...]": lambda x: x[...],
    "x.clone()": lambda x: x.clone(),
    "torch.stack([x, x]).unbind()[1]": lambda x: torch.stack([x, x]).unbind()[1],
    "Twice.apply(x) - x": lambda x: Twice.apply(x) - x,
    "x.t()": lambda x: x.permute(*range(x.dim())[::-1]) if x.dim() else x * 1,
}
ANY_RESULT = st.sampled_from(list(RESULTS))


def loaded(tensors, way):
    """The tensors, saved and loaded again; one that is loaded with weights_only=True as far as releases have it."""
    if way == "pickle":
        return pickle.loads(pickle.dumps(tensors))
    file = io.BytesIO()
    torch.save(tensors, file, _use_new_zipfile_serialization=way != "torch.save, old format")
    file.seek(0)
    return torch.load(file, weights_only=way == "torch.save, weights only")


FILES = ("torch.save", "torch.save, weights only", "torch.save, old format", "pickle")
SAVED = st.sampled_from(FILES[:3])
ANY_WAY = st.sampled_from(FILES)


ALL_WAYS = {
    **{way: lambda x, way=way: loaded(x, way) for way in FILES},
    "copy.copy": lambda x: copy.copy(x),
    "copy.deepcopy": lambda x: copy.deepcopy(x),
}


@claim(cites=["torch/save-keeps-requires-grad"])
@given(
    v=values(dtypes=SMALL_DTYPES), kind=st.sampled_from(list(LEAVES)), used=st.booleans(), way=st.sampled_from(FILES)
)
def spec_a_saved_leaf_comes_back_as_a_leaf(world, v, kind, used, way):
    """A leaf that is saved and loaded, or pickled, comes back as a leaf of the same kind with the same values and the
    same requires_grad, in memory of its own. Its .grad isn't saved."""
    x = LEAVES[kind](world.constant(v))
    x.grad = torch.full_like(x, 2) if used else None

    y = loaded(x, way)

    same([y, type(y) is type(x)], [x, True], why=f"it was {kind}")
    same([y.requires_grad, y.is_leaf, y.grad_fn], [x.requires_grad, True, None], why=f"it was {kind}")
    same(y.grad, None, why="a file has no gradients")
    same(x.grad, torch.full_like(x, 2).detach() if used else None, why="it was only read")
    with torch.no_grad():
        y.copy_(y + 1) if 0 not in y.stride() else None
    same(x, world.constant(v), why="the loaded one has its own memory")
    if y.requires_grad:
        (y * 3).sum().backward()
        same(y.grad, torch.full_like(y, 3).detach(), why="it is a leaf as any other")


@claim(cites=["torch/save-keeps-requires-grad"])
@given(v=values(), code=ANY_RESULT, way=ANY_WAY)
def spec_a_saved_result_comes_back_as_a_leaf(world, v, code, way):
    """A result that is saved and loaded, or pickled, comes back as a leaf: it requires grad, but its history isn't
    saved. The result itself keeps its own."""
    x = world.leaf(v)
    y = RESULTS[code](x)
    node = y.grad_fn

    z = loaded(y, way)

    same([z, z.requires_grad, z.is_leaf, z.grad_fn], [y, True, True, None], why=f"{code} was saved")
    same(y.grad_fn is node, True, why="it was only read")
    (z.sum() * 3 + y.sum() * 2).backward()
    same(z.grad, torch.full_like(z, 3).detach(), why="the loaded one is a leaf")
    same(x.grad, torch.full_like(x, 2).detach(), why="from the loaded one nothing flows back")


@claim(cites=["torch/save-preserves-sharing"])
@given(
    v=values(shapes=((2,), (3,), (2, 3), (3, 2, 2)), layouts=WRITABLE),
    way=SAVED,
    number=st.integers(5, 9),
)
def spec_saved_tensors_share_what_they_shared(world, v, way, number):
    """Tensors that share their memory share it when they are saved together and loaded, also if some of them require
    grad; a tensor that is saved twice comes back as one. What they share with others stays behind."""
    x = world.leaf(v)

    one, same_one, plain, part, result = loaded([x, x, x.detach(), x.detach()[1:], x[0]], way)

    same(one is same_one, True, why="it was one tensor")
    flags = [t.requires_grad for t in (one, plain, part, result)]
    same(flags, [True, False, False, True], why="each keeps its own")
    same([t.is_leaf for t in (one, plain, part, result)], [True] * 4, why="no history is saved")
    plain.fill_(number)
    expected = torch.full_like(x, number).detach()
    same([one, part, result], [expected, expected[1:], expected[0]], why="it is the same memory for all")
    same(x, world.constant(v), why="that of x is another")


@claim(observed=True)
@given(v=values(), codes=st.lists(ANY_RESULT, min_size=1, max_size=2), nested=st.booleans(), enabled=st.booleans())
def spec_a_result_cannot_be_copied_deeply(world, v, codes, nested, enabled):
    """copy.deepcopy raises an error for a tensor with a history, in any grad mode, and for whatever contains one; its
    graph stays whole. What is detached can be copied."""
    x = world.leaf(v)
    y = x
    for code in codes:
        y = RESULTS[code](y)
    thing = {"state": [torch.ones(2), (y,)]} if nested else y

    with torch.set_grad_enabled(enabled):
        with raises(RuntimeError, "deepcopy protocol", why=f"it is the result of {codes}"):
            copy.deepcopy(thing)

    z = copy.deepcopy(y.detach())
    same([z, z.requires_grad, z.is_leaf], [y, False, True], why="that has no history")
    (y * 2).sum().backward()
    same(x.grad, torch.full_like(x, 2).detach(), why="the graph is whole")


@claim(observed=True)
@given(v=values(layouts=WRITABLE), used=st.booleans(), number=st.integers(5, 9), parameter=st.booleans())
def spec_a_deep_copy_keeps_what_is_shared(world, v, used, number, parameter):
    """copy.deepcopy of several tensors copies a tensor that is there twice once, and tensors that share their memory
    share that of the copies."""
    x = torch.nn.Parameter(world.constant(v)) if parameter else world.leaf(v)
    x.grad = torch.full_like(x, 2) if used else None

    one, same_one, plain = copy.deepcopy([x, x, x.detach()])

    same([one is same_one, one is x], [True, False], why="it was one leaf")
    same([one.requires_grad, plain.requires_grad], [True, False], why="each keeps its own")
    if not parameter:  # the copy of a Parameter has memory of its own
        plain.fill_(number)
        same(one, torch.full_like(x, number).detach(), why="they share their memory")
    same(x, world.constant(v), why="that of x is another")
    (one * 3).sum().backward()
    before = 2 if used and not parameter else 0
    same(one.grad, torch.full_like(x, 3 + before).detach(), why="the copy is a leaf of its own")
    same(x.grad, torch.full_like(x, 2).detach() if used else None, why="x isn't in its graph")


@claim(observed=True)
@given(v=values(layouts=WRITABLE), kind=st.sampled_from([*LEAVES, *RESULTS]), number=st.integers(5, 9))
def spec_a_shallow_copy_is_a_leaf_over_the_same_memory(world, v, kind, number):
    """copy.copy of a tensor, be it a leaf or a result, is another tensor over the same memory: a leaf with the same
    requires_grad, without a history and without .grad."""
    x = LEAVES[kind](world.constant(v)) if kind in LEAVES else RESULTS[kind](world.leaf(v))

    y = copy.copy(x)

    same([y is x, type(y) is type(x)], [False, True], why=f"it is a copy of {kind}")
    same([y.requires_grad, y.is_leaf, y.grad_fn, y.grad], [x.requires_grad, True, None, None], why=f"copy of {kind}")
    with torch.no_grad():
        y.fill_(number)
    same(x, torch.full_like(x, number).detach(), why="they share their memory")


@claim(cites=["torch_tensor/hooks-are-not-saved"])
@given(
    v=values(),
    result=st.booleans(),
    hooks=st.integers(0, 2),
    removed=st.booleans(),
    way=st.sampled_from([*FILES, "copy.copy"]),
)
def spec_hooks_are_not_saved(world, v, result, hooks, removed, way):
    """Hooks of a tensor go neither into a file nor into a shallow copy: to save a tensor that has one gives a warning,
    and the tensor that is loaded has none."""
    x = world.leaf(v) * 1 if result else world.leaf(v)
    handles = [x.register_hook(lambda gradient: gradient * 5) for _ in range(hooks)]
    if removed:
        for handle in handles:
            handle.remove()

    if handles and not removed:
        with warns(UserWarning, "not be serialized", why="x has a hook"):
            y = ALL_WAYS[way](x)
    else:
        y = ALL_WAYS[way](x)

    (y * 3).sum().backward()
    same(y.grad, torch.full_like(y, 3).detach(), why="no hook came with it")


@claim(observed=True)
@given(v=values(), hooks=st.integers(1, 3), nested=st.booleans())
def spec_a_deep_copy_has_no_hooks(world, v, hooks, nested):
    """copy.deepcopy of a leaf copies none of its hooks; those of the leaf stay."""
    x = world.leaf(v)
    for _ in range(hooks):
        x.register_hook(lambda gradient: gradient * 5)

    y = copy.deepcopy({"x": [x]})["x"][0] if nested else copy.deepcopy(x)

    (y * 3 + x * 2).sum().backward()
    same(y.grad, torch.full_like(y, 3).detach(), why="no hook was copied")
    same(x.grad, torch.full_like(x, 2 * 5**hooks).detach(), why="x has its hooks")


@claim(observed=True)
@given(v=values(), code=ANY_RESULT, nested=st.booleans())
def spec_a_result_cannot_be_sent_to_another_process(world, v, code, nested):
    """A result that requires grad can't be sent to another process: autograd doesn't go beyond one. The error tells to
    detach it, and the graph is whole."""
    x = world.leaf(v)
    y = RESULTS[code](x)

    with raises(RuntimeError, "detach()", why=f"{code} has a history"):
        ForkingPickler(io.BytesIO()).dump([y] if nested else y)

    (y * 2).sum().backward()
    same(x.grad, torch.full_like(x, 2).detach(), why="the graph is whole")


@claim(cites=["introyt/printing-shows-the-history"], needs=["printing"])
@given(
    v=values(),
    kind=st.sampled_from([*LEAVES, *RESULTS, "x > 0"]),
    moment=st.sampled_from(["before", "after", "without grad mode"]),
)
def spec_print_tells_the_history(world, v, kind, moment):
    """What print shows of a tensor tells its history: requires_grad=True of a leaf that requires grad, the name of its
    grad_fn of a result, and nothing of all others. To print a tensor changes nothing."""
    make = {**LEAVES, "x > 0": lambda x: x > 0}.get(kind) or RESULTS[kind]
    t = make(world.leaf(v) if kind in RESULTS else world.constant(v))
    if moment == "after" and t.requires_grad:
        t.sum().backward()
    before = [t._version, t.requires_grad, t.grad_fn]

    with torch.set_grad_enabled(moment != "without grad mode"):
        text = repr(t)

    same("requires_grad=True" in text, t.requires_grad and t.is_leaf, why=f"{kind} is printed")
    shown = f"grad_fn=<{type(t.grad_fn).__name__}>"
    same([shown in text, "grad_fn" in text], [not t.is_leaf] * 2, why=f"{kind} is printed")
    same([t._version, t.requires_grad, t.grad_fn], before, why="it was only read")


@claim(cites=["torch_autograd/variable-is-a-tensor"])
@given(
    v=values(layouts=WRITABLE),
    code=st.sampled_from(["a constant", "x", *RESULTS]),
    asked=st.sampled_from([None, False, True]),
    number=st.integers(5, 9),
)
def spec_a_variable_is_a_tensor(world, v, code, asked, number):
    """torch.autograd.Variable(t) is a tensor over the memory of t, a leaf that requires grad only if asked to; every
    tensor is an instance of Variable."""
    x = world.leaf(v)
    t = {"a constant": x.detach(), "x": x}[code] if code not in RESULTS else RESULTS[code](x)
    variable = torch.autograd.Variable

    y = variable(t) if asked is None else variable(t, requires_grad=asked)

    same([type(y) is torch.Tensor, isinstance(t, variable)], [True, True], why="there is no other type")
    same([y, y.requires_grad, y.is_leaf, y.grad_fn], [t, bool(asked), True, None], why=f"it was made of {code}")
    with torch.no_grad():
        y.fill_(number)
    same(t, torch.full_like(t, number).detach(), why="it is the same memory")
    (y * 3 + x.sum()).sum().backward()
    same(y.grad, torch.full_like(y, 3).detach() if asked else None, why="it is the leaf of its graph")
    same(x.grad, torch.full_like(x, y.numel()).detach(), why="only the sum of x leads to x")


LAZY = {  # tensors whose values are stored conjugated or negated, made of a complex one
    "c.conj()": lambda c: c.conj(),
    "c.conj().imag": lambda c: c.conj().imag,
    "c.conj()[...]": lambda c: c.conj()[...],
    "torch.view_as_real(c).neg()": lambda c: torch.view_as_real(c).neg(),
    "c": lambda c: c,
}


@claim(cites=["torch/save-keeps-requires-grad"], since="2.0", needs=["float64", "complex128"])
@given(v=values(), code=st.sampled_from(list(LAZY)), way=st.sampled_from(list(ALL_WAYS)), required=st.booleans())
def spec_a_leaf_that_is_stored_conjugated_is_copied_with_its_values(world, v, code, way, required):
    """A leaf whose values are stored conjugated or negated comes out of a file or a copy with its values and its
    requires_grad."""
    real = world.constant(v).double()
    x = LAZY[code](torch.complex(real, real + 1)).requires_grad_(required)

    y = ALL_WAYS[way](x)

    same(y.detach().resolve_conj().resolve_neg(), x.detach().resolve_conj().resolve_neg(), why=f"{way} of {code}")
    same([y.requires_grad, y.is_leaf, y.grad_fn], [required, True, None], why=f"{way} of {code}")


@claim(observed=True, until="2.0", needs=["float64", "complex128"])
@given(v=values(), way=st.sampled_from([*FILES[:1], *FILES[2:]]), required=st.booleans())
def spec_a_leaf_that_is_stored_conjugated_is_saved_as_it_is_stored(world, v, way, required):
    """A leaf whose values are stored conjugated comes out of a file with the values that are stored, not conjugated."""
    real = world.constant(v).double()
    c = torch.complex(real, real + 1)

    y = loaded(c.conj().requires_grad_(required), way)

    same([y.resolve_conj(), y.requires_grad], [c, required], why="the file doesn't tell that they are conjugated")


@claim(observed=True)
@given(v=values(), way=st.sampled_from([*FILES, "copy.copy"]))
def spec_a_sparse_leaf_comes_back_without_requires_grad(world, v, way):
    """A sparse leaf that requires grad, of the coordinate layout, comes out of a file or a shallow copy with its values
    but doesn't require grad any more; a deep copy does."""
    x = world.constant(v).cpu().to_sparse().requires_grad_()

    y, z = ALL_WAYS[way](x), copy.deepcopy(x)

    same([y.to_dense(), z.to_dense()], [x.to_dense()] * 2, why="these are its values")
    same([x.requires_grad, y.requires_grad, z.requires_grad], [True, False, True], why=f"{way} forgets the flag")
    same([y.is_leaf, z.is_leaf], [True, True], why="no history is copied")


@claim(observed=True, since="2.1")
@given(v=values(shapes=((2, 3), (3, 2), (1, 3), (2, 2))), way=st.sampled_from(FILES), by_column=st.booleans())
def spec_a_leaf_of_compressed_sparse_layout_comes_back_as_a_result(world, v, way, by_column):
    """A leaf that requires grad of a compressed sparse layout comes out of a file as a result: it requires grad, but
    its gradient goes to a tensor that nobody has."""
    dense = world.constant(v).cpu()
    x = (dense.to_sparse_csc() if by_column else dense.to_sparse_csr()).requires_grad_()

    y = loaded(x, way)

    same([y.detach().to_dense(), y.layout], [dense, x.layout], why="these are its values")
    same([y.requires_grad, y.is_leaf, y.grad_fn is None], [True, False, False], why="its values are the leaf")
