"""What hooks for saved tensors may do and may not, and what becomes of what they keep."""

import weakref

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks

from .kit import WRITABLE, claim, raises, same, values
from .kit.choices import some_of
from .saved_tensor_hooks import FAITHFUL
from .saved_tensors import CHAIN, CHANGES, EXACT, READABLE, SAVING_INPUT, SAVING_RESULT


@claim(observed=True)
@given(v=values(), recording=st.booleans(), create_graph=st.booleans(), alone=st.booleans())
def spec_pack_runs_without_recording_and_unpack_as_its_caller(world, v, recording, create_graph, alone):
    """What pack computes is never recorded. Unpack runs in the grad mode of whoever reads the tensor, which in a
    backward says whether it makes a graph."""
    x, packing, unpacking = world.leaf(v), [], []

    def pack(t):
        packing.append((torch.is_grad_enabled(), (t * 2).requires_grad))
        return t.detach()

    def unpack(packed):
        unpacking.append(torch.is_grad_enabled())
        return packed

    if alone:
        y = x.square()
        y.grad_fn._raw_saved_self.register_hooks(pack, unpack)
    else:
        with saved_tensors_hooks(pack, unpack):
            y = x.square()
    same(packing, [(False, False)], why="pack runs without recording")
    y.sum().backward(retain_graph=True)
    with torch.set_grad_enabled(recording):
        same(y.grad_fn._saved_self, x, why="unpack gave it back")
        if recording:
            torch.autograd.grad(y.sum(), x, create_graph=create_graph)
    same(unpacking, [False, recording] + [create_graph] * recording, why="a backward, a reading, and perhaps grad()")


@claim(
    cites=[
        "autograd_mechanics/changing-what-pack-gets-raises",
        "torch_autograd/changing-what-hooks-get-is-undefined",
    ]
)
@given(
    v=values(layouts=WRITABLE, dtypes=EXACT),
    codes=some_of(READABLE, 4),
    change=st.sampled_from(list(CHANGES)),
    alone=st.booleans(),
)
def spec_pack_must_not_change_its_argument(world, v, codes, change, alone):
    """A pack hook that changes the tensor that it gets in place, a view of it included, makes the operation, or
    register_hooks(), raise an error. No hooks are left behind."""
    for code in codes:
        x, w = world.leaf(v), world.leaf(v)
        operation, attributes = READABLE[code]

        def pack(t):
            CHANGES[change](t)
            return t.detach()

        y = operation(x, w)
        with raises(RuntimeError, "modifying its input in place", why=f"pack does {change}"):
            if alone:
                raw = getattr(y.grad_fn, next(iter(attributes)).replace("_saved", "_raw_saved"))
                raw.register_hooks(pack, lambda packed: packed)
            else:
                with saved_tensors_hooks(pack, lambda packed: packed):
                    operation(x, w)

        numbers = x.detach().clone()
        (x * x).sum().backward()
        same(x.grad, 2 * numbers, why="no hooks are set any more")


@claim(
    cites=[
        "autograd_mechanics/changing-what-unpack-gets-is-not-noticed",
        "torch_autograd/changing-what-hooks-get-is-undefined",
    ],
    observed=True,
)
@given(v=values(layouts=WRITABLE), factors=st.lists(st.sampled_from([2, -1, 3]), min_size=1, max_size=3))
def spec_an_unpack_hook_that_changes_its_argument_is_not_noticed(world, v, factors):
    """If an unpack hook changes what is packed in place, no error comes. Each later use sees the change."""
    x, total, left = world.leaf(v), 1, list(factors)
    with saved_tensors_hooks(lambda t: t.detach().clone(), lambda packed: packed.mul_(left.pop(0))):
        y = x.square()

    for factor in factors:
        total *= factor
        (gradient,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
        same(gradient, 2 * total * world.constant(v), why=f"unpack has multiplied the packed tensor by {total}")
    same(x, world.constant(v), why="pack had made a copy")


PACKED_AS = {
    "t.detach()": (lambda t: t.detach(), True),
    "t.detach().clone()": (lambda t: t.detach().clone(), False),
    "(t * 1).clone()": (lambda t: (t * 1).clone(), False),
    "t.detach()[...]": (lambda t: t.detach()[...], True),
}


@claim(
    observed=True,
    cites=["autograd_mechanics/changed-saved-tensor-raises", "autograd_mechanics/no-error-means-right-gradients"],
)
@given(
    v=values(layouts=WRITABLE),
    w=st.integers(-3, 3),
    way=st.sampled_from(list(PACKED_AS)),
    change=st.sampled_from(list(CHANGES)),
    alone=st.booleans(),
)
def spec_with_hooks_a_change_of_a_saved_tensor_is_not_noticed(world, v, w, way, change, alone):
    """Where hooks are set on it, a saved tensor that is changed in place afterwards raises no error. The gradient
    is right if pack made a copy, and otherwise one of the new values."""
    x, k = world.leaf(v), torch.full_like(world.constant(v), w)
    pack, shares = PACKED_AS[way]

    if alone:
        y = k * x
        y.grad_fn._raw_saved_self.register_hooks(pack, lambda packed: packed)
    else:
        with saved_tensors_hooks(pack, lambda packed: packed):
            y = k * x
    old = k.clone()
    CHANGES[change](k)
    try:
        y.sum().backward()
        refused = None
    except RuntimeError as error:
        refused = str(error)

    same(refused, None, why=f"k was packed as {way}, and versions of what is packed aren't compared")
    same(x.grad, k if shares else old, why=f"the gradient of k * x is what was packed as {way}")


ERRORS = {
    "KeyError": KeyError,
    "RuntimeError": RuntimeError,
    "ZeroDivisionError": ZeroDivisionError,
    "StopIteration": StopIteration,
    "OSError": OSError,
}
RUNNING = {
    "backward": lambda y, x: y.backward(torch.ones_like(y)),
    "grad": lambda y, x: torch.autograd.grad(y, x, torch.ones_like(y)),
    "read": lambda y, x: y.grad_fn._saved_self,
}


@claim(observed=True, since="2.0")
@given(v=values(), name=st.sampled_from(list(ERRORS)), where=st.sampled_from(["pack", "register", *RUNNING]))
def spec_an_error_in_a_hook_reaches_the_caller(world, v, name, where):
    """An error that pack raises comes out of the operation or of register_hooks, one that unpack raises out of
    backward or of reading, with its type and its message. If unpack works the next time, so does backward."""
    x, log, failing = world.leaf(v), [], [True]

    def hook(given):
        log.append("called")
        if failing:
            raise ERRORS[name]("on purpose")
        return given.detach()

    if where in ("pack", "register"):
        y = torch.square(x)
        with raises(ERRORS[name], "on purpose", why="pack raised it"):
            if where == "register":
                y.grad_fn._raw_saved_self.register_hooks(hook, lambda packed: packed)
            else:
                with saved_tensors_hooks(hook, lambda packed: packed):
                    y = torch.square(x)
        y = torch.square(x)
    else:
        with saved_tensors_hooks(lambda t: t.detach(), hook):
            y = torch.square(x)
        for number in range(1, 3):
            with raises(ERRORS[name], "on purpose", why="unpack raised it"):
                RUNNING[where](y, x)
            same(log, ["called"] * number, why="unpack was called, and failed")
            same(x.grad, None, why="there was no gradient")
        failing.clear()
    y.sum().backward()
    same(x.grad, 2 * x.detach(), why="nothing was lost by the error")


@claim(observed=True, until="2.0")
@given(v=values(), name=st.sampled_from(list(ERRORS)), where=st.sampled_from(["pack", *RUNNING]))
def spec_an_error_in_a_hook_comes_as_a_runtime_error(world, v, name, where):
    """An error that a hook of a context raises comes as a RuntimeError that tells its type and message."""
    x = world.leaf(v)

    def fail(given):
        raise ERRORS[name]("on purpose")

    with raises(RuntimeError, f"{name}: on purpose", f"{name}: 'on purpose'", why="a hook raised it"):
        with saved_tensors_hooks(fail if where == "pack" else lambda t: t.detach(), fail):
            y = torch.square(x)
        RUNNING[where](y, x)
    same(x.grad, None, why="there was no gradient")


NO_TENSORS = {
    "None": None,
    "3": 3,
    "2.0": 2.0,
    "'text'": "text",
    "[]": [],
    "(torch.ones(()),)": (torch.ones(()),),
    "torch.Tensor": torch.Tensor,
    "torch.float64": torch.float64,
}


@claim(cites=["autograd_mechanics/unpacked-is-used-in-backward", "torch_autograd/unpacked-is-what-was-packed"])
@given(
    v=values(),
    name=st.sampled_from(list(NO_TENSORS)),
    wheres=st.lists(st.sampled_from(list(RUNNING)), min_size=1, max_size=2),
    alone=st.booleans(),
)
def spec_unpack_must_return_a_tensor(world, v, name, wheres, alone):
    """An unpack hook that returns anything but a tensor makes whoever needs the saved tensor, backward or a
    reading, raise a TypeError. No gradient is written."""
    x = world.leaf(v)
    pair = lambda t: t.detach(), lambda packed: NO_TENSORS[name]

    if alone:
        y = x.square()
        y.grad_fn._raw_saved_self.register_hooks(*pair)
    else:
        with saved_tensors_hooks(*pair):
            y = x.square()

    for where in wheres:
        with raises(TypeError, "expected to be a Tensor", why=f"unpack returned {name}"):
            RUNNING[where](y, x)
    same(x.grad, None, why="there was no gradient")
    (x * 2).sum().backward()
    same(x.grad, torch.full_like(x, 2), why="another graph has no hooks")


@claim(cites=["torch_autograd/unpacked-is-what-was-packed"], observed=True)
@given(v=values(), number=st.integers(-3, 3), shape=st.sampled_from([(), (1,)]), dtype=st.booleans())
def spec_nobody_checks_what_unpack_returns(world, v, number, shape, dtype):
    """If unpack returns a tensor of another shape or floating dtype than the one that was packed, backward
    computes with it as far as it goes; the gradient has the dtype and shape of the leaf."""
    x = world.leaf(v)

    def unpack(packed):
        return torch.full(shape, float(number), dtype=torch.float32 if dtype else packed.dtype, device=packed.device)

    with saved_tensors_hooks(lambda t: t.detach(), unpack):
        y = x.square()
    y.backward(torch.ones_like(y))

    same(x.grad, torch.full_like(x, 2 * number), why=f"the gradient is twice what was saved, {number} instead")


# Hooks that give back the content: whether a matrix is contiguous then, given whether it was.
RELAID = {
    "t.detach()": (lambda: saved_tensors_hooks(*FAITHFUL["t.detach()"]()), lambda rows: rows),
    "bytes": (lambda: saved_tensors_hooks(*FAITHFUL["bytes"]()), lambda rows: True),
    "other strides": (lambda: saved_tensors_hooks(*FAITHFUL["other strides"]()), lambda rows: False),
    "save_on_cpu()": (lambda: save_on_cpu(), lambda rows: rows),
    "save_on_cpu(pin_memory=True)": (lambda: save_on_cpu(pin_memory=True), lambda rows: True),
}
DETERMINANTS = {
    "torch.det(x)": (lambda x: torch.det(x), lambda det: 1),
    "torch.linalg.det(x[None])[0]": (lambda x: torch.linalg.det(x[None])[0], lambda det: 1),
    "torch.linalg.slogdet(x)[1]": (lambda x: torch.linalg.slogdet(x)[1], lambda det: det),
}
POWER_OF_TWO = st.sampled_from([1, 2, -1, -2, 4])  # divisions by these are exact


@claim(
    cites=[
        "autograd_mechanics/autograd-metadata-is-overwritten",
        "torch_autograd/save-on-cpu-keeps-saved-tensors-on-the-cpu",
    ],
    observed=True,
)
@given(
    numbers=st.tuples(POWER_OF_TWO, POWER_OF_TWO, POWER_OF_TWO),
    rows=st.booleans(),
    way=st.sampled_from(list(RELAID)),
    code=st.sampled_from(list(DETERMINANTS)),
)
def spec_the_gradient_of_a_determinant_relies_on_strides(world, numbers, rows, way, code):
    """If what unpack returns for the matrix of a determinant is contiguous where the matrix wasn't, or the other way
    round, as with save_on_cpu(pin_memory=True), the gradient is transposed, without a word."""
    a, b, d = numbers
    matrix, cofactors = torch.tensor([[a, b], [0.0, d]]), torch.tensor([[d, 0.0], [-b, a]])
    x = matrix.to(world.device) if rows else matrix.t().contiguous().to(world.device).t()
    x.requires_grad_()
    operation, divisor = DETERMINANTS[code]
    hooks, contiguous = RELAID[way]

    with hooks():
        y = operation(x)
    y.backward()

    right = (cofactors / divisor(a * d)).to(world.device)
    expected = right if contiguous(rows) == rows else right.t()
    same(x.grad, expected, why=f"contiguous before: {rows}, and behind {way}: {contiguous(rows)}")


@claim(cites=["torch_autograd/unpacked-is-what-was-packed"], observed=True)
@given(v=values(dtypes=("float64", "float32")), slope=st.sampled_from([0.25, 0.5]))
def spec_rrelu_packs_its_random_numbers_before_they_are_drawn(world, v, slope):
    """In training mode, rrelu() calls pack with its random slopes before it draws them. The gradient is right if pack
    keeps the memory where they will be written; a copy holds what this memory held before."""
    x = (-world.constant(v).abs() - 1).cpu().requires_grad_()
    before, drawn, kept = torch.get_rng_state(), [], []

    def pack(t):
        drawn.append(not torch.equal(torch.get_rng_state(), before))
        kept.append(t.detach())
        return t.detach()

    with saved_tensors_hooks(pack, lambda packed: packed):
        y = torch.nn.functional.rrelu(x, slope, slope, training=True)

    same((len(drawn) > 1, any(drawn)), (True, False), why="pack was called before a number was drawn")
    same(torch.equal(torch.get_rng_state(), before), not x.numel(), why="then they were drawn")
    slopes = torch.full_like(x, slope)
    same(any(torch.equal(t, slopes) for t in kept), True, why="now they stand in the memory that was packed")
    y.sum().backward()
    same(x.grad, slopes, why="every slope is drawn between two equal limits")


class Kept:
    """Something that holds a tensor."""

    def __init__(self, t):
        self.tensor = t.detach()


@claim(
    cites=[
        "autograd_mechanics/packed-objects-live-as-long-as-needed",
        "saved_tensor_hooks/saved-data-is-released",
    ]
)
@given(v=values(), codes=CHAIN, retained=st.integers(0, 2), end=st.sampled_from(["backward", "grad", "forget"]))
def spec_what_is_packed_lives_until_the_graph_is_freed(world, v, codes, retained, end):
    """The graph keeps what pack returned until a backward frees it or the graph itself is forgotten; then it is
    gone at once, the hooks too, and another backward raises an error that tells to retain the graph."""
    x, packed = world.leaf(v), []

    def pack(t):
        kept = Kept(t)
        packed.append(weakref.ref(kept))
        return kept

    def unpack(kept):
        return kept.tensor

    hooks = [weakref.ref(pack), weakref.ref(unpack)]
    with saved_tensors_hooks(pack, unpack):
        y = x * 1
        for code in codes:
            y = SAVING_INPUT[code](y)
        loss = y.sum()
    del y, pack, unpack

    for _ in range(retained):
        loss.backward(retain_graph=True)
    same({ref() is not None for ref in [*packed, *hooks]}, {True}, why="another backward may come")
    if end == "backward":
        loss.backward()
    elif end == "grad":
        torch.autograd.grad(loss, x)
    else:
        del loss
    same({ref() is None for ref in [*packed, *hooks]}, {True}, why=f"after {end} nobody needs them")
    if end != "forget":
        with raises(RuntimeError, "retain_graph=True", why=f"what was packed is freed by {end}"):
            loss.backward()


@claim(cites=["torch_autograd/what-pack-returns-must-not-refer-to-its-argument"])
@given(v=values(), codes=some_of(SAVING_RESULT), used=st.booleans())
def spec_packing_a_detached_tensor_makes_no_reference_cycle(world, v, codes, used):
    """If pack returns t.detach(), the graph is freed as soon as nothing refers to it, also if a result was
    saved."""
    for code in codes:
        x = world.leaf(v)
        a = x * 1
        b = a * a  # as long as its graph lives, it refers to a
        reference = weakref.ref(a)
        with saved_tensors_hooks(lambda t: t.detach(), lambda packed: packed):
            z = SAVING_RESULT[code](b)
        del a, b

        if used:
            z.sum().backward(retain_graph=True)
        del z

        same(reference() is None, True, why=f"nothing refers to the graph of {code} any more")


PACKING_THE_TENSOR = {
    "t": (lambda t: t, lambda packed: packed),
    "(t,)": (lambda t: (t,), lambda packed: packed[0]),
    "a view of t": (lambda t: torch.enable_grad()(t.view_as)(t), lambda packed: packed),
    "save_on_cpu": (
        save_on_cpu().pack_hook,
        save_on_cpu().unpack_hook,
    ),
}


@claim(cites=["torch_autograd/what-pack-returns-must-not-refer-to-its-argument"], observed=True)
@given(v=values(), way=st.sampled_from(list(PACKING_THE_TENSOR)), code=st.sampled_from(["exp", "relu", "tanh"]))
def spec_packing_a_result_as_it_is_keeps_the_graph_alive(world, v, way, code):
    """If pack returns its argument or what refers to it, as save_on_cpu does on the CPU, a graph in which a result
    was saved stays in memory though nothing refers to it, until a backward frees it."""
    x, saved = world.leaf(v).cpu().detach().requires_grad_(), []
    pack, unpack = PACKING_THE_TENSOR[way]

    a = x * 1
    reference = weakref.ref(a)
    with saved_tensors_hooks(lambda t: saved.append(t) or pack(t), unpack):
        z = getattr(a.abs() * a, code)()
    del a, z
    result = weakref.ref(saved[-1])
    del saved[:]

    same(reference() is not None, True, why="the node and the tensor that it saved refer to each other")
    result().sum().backward()
    same(reference() is None, True, why="backward released what was saved")
