"""Version counters: how a tensor tells that it was written."""

import copy
import pickle

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import WRITABLE, claim, raises, same, values
from .kit.choices import some_of
from .kit.writes import ALIASES, FILLED, FURTHER_WRITES, UNRECORDED, WRITES, target_and_operand

CHANGED = "modified by an inplace operation"


# New tensors, made of x or in its shape.
NEW = {
    "torch.zeros_like(x)": lambda x: torch.zeros_like(x),
    "torch.full_like(x, 3)": lambda x: torch.full_like(x, 3),
    "torch.eye(3)": lambda x: torch.eye(3, device=x.device),
    "torch.arange(3)": lambda x: torch.arange(3, device=x.device),
    "torch.linspace(0, 1, 3)": lambda x: torch.linspace(0, 1, 3, device=x.device),
    "torch.rand(2)": lambda x: torch.rand(2, device=x.device),
    "torch.tensor(x.tolist())": lambda x: torch.tensor(x.tolist(), device=x.device),
    "x.clone()": lambda x: x.clone(),
    "x.detach().clone()": lambda x: x.detach().clone(),
    "x * 2": lambda x: x * 2,
    "x.sum()": lambda x: x.sum(),
    "x.to(torch.float16)": lambda x: x.to(torch.float16),
    "x.masked_fill(x > 0, 1)": lambda x: x.masked_fill(x > 0, 1),
    "x[x > 0]": lambda x: x[x > 0],
    "torch.stack([x, x])": lambda x: torch.stack([x, x]),
    "torch.where(x > 0, x, -x)": lambda x: torch.where(x > 0, x, -x),
    "x.cumsum(0)": lambda x: x.cumsum(0),
    "x.softmax(-1)": lambda x: x.softmax(-1),
    "x.data": lambda x: x.data,
}


@claim(cites=["autograd_mechanics/tensors-count-their-writes"], needs=["float16", "random"])
@given(v=values(layouts=WRITABLE), names=some_of(NEW), writes=st.integers(0, 2), tracked=st.booleans())
def spec_a_new_tensor_was_never_written(world, v, names, writes, tracked):
    """What a factory or an operation out of place makes has the version 0, whatever the versions of its operands;
    so has what .data gives."""
    x = world.constant(v)
    for _ in range(writes):
        x.add_(1)
    x.requires_grad_(tracked)

    for name in names:
        same(NEW[name](x)._version, 0, why=f"{name} made a tensor that nothing has written yet")
    same(x._version, writes, why="x was only read")


def in_grad_mode(write):
    """Write where operations are recorded."""
    write()


@torch.inference_mode()
def in_inference_mode(write):
    """Write a tensor from outside in inference mode."""
    write()


MODES = {**UNRECORDED, "in_grad_mode": in_grad_mode, "in_inference_mode": in_inference_mode}


@claim(
    cites=["autograd_mechanics/tensors-count-their-writes", "torch_autograd/tensors-keep-track-of-writes"],
    needs=["random"],
)
@given(
    pair=target_and_operand(),
    writes=some_of([*WRITES, *FURTHER_WRITES]),
    mode=st.sampled_from(list(MODES)),
    kind=st.sampled_from(["constant", "leaf", "result"]),
)
def spec_each_write_counts_once(world, pair, writes, mode, kind):
    """Every operation in place raises the version of the tensor that it writes by one, whatever the mode and
    whether or not the tensor requires grad, and also if it has no elements or none of them changes. The tensors
    that it reads keep theirs."""
    target, operand = pair
    for name in writes:
        y, w = world.constant(target), world.constant(operand)
        y.requires_grad_(kind != "constant")
        y = y * 1 if kind == "result" else y
        way = "in_a_block" if kind == "leaf" and mode == "in_grad_mode" else mode
        before = y._version
        write = WRITES[name].run if name in WRITES else lambda y, w: FURTHER_WRITES[name](y)

        for number in (1, 2):
            MODES[way](lambda: write(y, w))
            same(y._version, before + number, why=f"{name} was run {number} times")
        same(w._version, 0, why=f"{name} only read w")


# What can be done with x, which doesn't require grad at first, and is no write.
HARMLESS = {
    "x + x": lambda x: x + x,
    "x.sum()": lambda x: x.sum(),
    "x.tolist()": lambda x: x.tolist(),
    "repr(x)": lambda x: repr(x),
    "x == x": lambda x: x == x,
    "x.clone().add_(1)": lambda x: x.clone().add_(1),
    "x[x > 0].zero_()": lambda x: x[x > 0].zero_(),
    "torch.stack([x]).zero_()": lambda x: torch.stack([x]).zero_(),
    "x.detach()": lambda x: x.detach(),
    "x.view(x.shape)": lambda x: x.view(x.shape),
    "x.unsqueeze(0).sum(0)": lambda x: x.unsqueeze(0).sum(0),
    "x.data": lambda x: x.data,
    "x.data.add_(1)": lambda x: x.data.add_(1),
    "x.requires_grad_()": lambda x: x.requires_grad_(),
    "x.requires_grad_(False)": lambda x: x.requires_grad_(False),
    "x.detach_()": lambda x: x.detach_(),
    "x.contiguous()": lambda x: x.contiguous(),
    "x.to(x.dtype)": lambda x: x.to(x.dtype),
    "copy.deepcopy(x)": lambda x: copy.deepcopy(x.detach()),
    "(x * x.requires_grad_()).sum().backward()": lambda x: (x * x.requires_grad_()).sum().backward(),
    "x.register_hook": lambda x: x.requires_grad_().register_hook(print).remove(),
    "x.grad = torch.ones_like(x)": lambda x: setattr(x, "grad", torch.ones_like(x.detach())),
    "x.data = torch.ones_like(x)": lambda x: setattr(x, "data", torch.ones_like(x.detach())),
    "torch.nn.Parameter(x)": lambda x: torch.nn.Parameter(x.detach()),
    "torch.add(x, 1, out=torch.empty_like(x))": lambda x: torch.add(x.detach(), 1, out=torch.empty_like(x.detach())),
}


@claim(cites=["autograd_mechanics/tensors-count-their-writes"], needs=["printing"])
@given(v=values(layouts=("contiguous",)), names=some_of(HARMLESS), writes=st.integers(0, 2))
def spec_nothing_else_counts(world, v, names, writes):
    """Reading a tensor, taking views of it, computing with it, differentiating, changing its flags, its .grad or
    its .data leaves its version as it is."""
    x = world.constant(v)
    for _ in range(writes):
        x.add_(1)

    for name in names:
        HARMLESS[name](x)
        same(x._version, writes, why=f"{name} writes nothing into x, as far as autograd knows")


@claim(cites=["torch_tensor/detached-shares-storage", "autograd_mechanics/tensors-count-their-writes"])
@given(
    v=values(shapes=FILLED, layouts=WRITABLE),
    names=st.lists(st.sampled_from(list(ALIASES)), min_size=2, max_size=3),
    chained=st.booleans(),
    written=st.integers(0, 3),
    result=st.booleans(),
)
def spec_all_that_share_memory_count_together(world, v, names, chained, written, result):
    """A tensor, its views, views of these and what was detached from any of them have one counter: whichever of
    them is written, all have the new version."""
    y = world.leaf(v) * 1 if result else world.constant(v)
    y.detach().add_(1)
    family = [y]
    for name in names:
        family.append(ALIASES[name](family[-1] if chained else y))
    other = family[written % len(family)]

    same([t._version for t in family], [1] * len(family), why=f"y was written before {names} were taken")
    with torch.no_grad():
        other.mul_(2)
    same([t._version for t in family], [2] * len(family), why=f"one of {names} was written")
    y.detach().zero_()
    same([t._version for t in family], [3] * len(family), why="what was detached was written")
    same([ALIASES[name](y)._version for name in names], [3] * len(names), why="later ones share it as well")


COPIES = {
    "copy.deepcopy(x)": lambda x: copy.deepcopy(x),
    "pickle.loads(pickle.dumps(x))": lambda x: pickle.loads(pickle.dumps(x)),
    "x.clone()": lambda x: x.clone(),
    "x.to(x.dtype, copy=True)": lambda x: x.to(x.dtype, copy=True),
    "torch.nn.Parameter(x.clone())": lambda x: torch.nn.Parameter(x.clone()),
}


@claim(observed=True)
@given(
    v=values(layouts=WRITABLE), name=st.sampled_from(list(COPIES)), writes=st.integers(0, 3), later=st.integers(0, 2)
)
def spec_a_copy_has_a_counter_of_its_own(world, v, name, writes, later):
    """A copy, also one by copy.deepcopy() or pickle, counts its own writes and doesn't know those of the
    original, before and after it was made."""
    x = world.constant(v)
    fresh = COPIES[name](x)._version
    for _ in range(writes):
        x.add_(1)

    y = COPIES[name](x)
    same(y._version, fresh, why=f"the original had been written {writes} times")
    for _ in range(later):
        y.detach().add_(1)
    x.add_(1)

    same((x._version, y._version), (writes + 1, fresh + later), why="each counts its own")


@claim(observed=True)
@given(v=values(layouts=WRITABLE), writes=st.integers(0, 3), number=st.integers(-1, 9))
def spec_the_version_is_read_only(world, v, writes, number):
    """The version can't be assigned or deleted."""
    x = world.constant(v)
    for _ in range(writes):
        x.add_(1)

    with raises(AttributeError, "not writable", why="_version is counted by PyTorch"):
        x._version = number
    with raises(AttributeError, why="_version is counted by PyTorch"):
        del x._version

    same(x._version, writes, why="there were so many writes")


@claim(cites=["torch_autograd/grad-accumulates-in-place"])
@given(v=values(), passes=st.integers(1, 3), retained=st.booleans())
def spec_accumulation_counts_as_a_write_of_grad(world, v, passes, retained):
    """Each backward that adds to a .grad in place raises the version of .grad by one; a leaf's own version stays
    as it is."""
    x = world.leaf(v)
    (x * 2).sum().backward()
    gradient, version = x.grad, x.grad._version

    for number in range(1, passes + 1):
        (x * 2).sum().backward(retain_graph=retained)
        same(gradient._version, version + number, why="a gradient was added in place")

    same(x.grad is gradient, True, why="it was added in place")
    same(x._version, 0, why="x was only read")


@claim(cites=["torch_autograd/increment-version-counts-a-write"], since="2.1")
@given(
    v=values(layouts=WRITABLE),
    times=st.integers(0, 3),
    alias=st.one_of(st.none(), st.sampled_from(list(ALIASES))),
    kind=st.sampled_from(["leaf", "result"]),
)
def spec_increment_version_counts_a_write_that_pytorch_does_not_know_of(world, v, times, alias, kind):
    """torch.autograd.graph.increment_version raises the version of a tensor by one, as a write would: a backward
    that needs the tensor, saved before, raises the error. Nothing else changes."""
    x = world.leaf(v)
    y = x * 1 if kind == "result" else x
    loss = (y * y).sum()
    alias = "y.detach()" if alias and not y.numel() else alias

    for _ in range(times):
        same(torch.autograd.graph.increment_version(ALIASES[alias](y) if alias else y), None, why="it returns nothing")

    same(y._version, times, why=f"it was called {times} times")
    same((y, y.requires_grad, y.is_leaf), (world.constant(v), True, kind == "leaf"), why="nothing was written")
    if times:
        with raises(RuntimeError, CHANGED, why="the version says that y was written"):
            loss.backward()
    else:
        loss.backward()
    same(x.grad, None if times else 2 * x.detach(), why=f"it was called {times} times")


@claim(cites=["torch_autograd/increment-version-takes-several-tensors"], since="2.6")
@given(
    v=values(),
    chosen=st.lists(st.integers(0, 2), max_size=4),
    form=st.sampled_from(["list", "tuple", "generator"]),
    bad=st.sampled_from(["nothing", "a number", "a number among tensors"]),
)
def spec_increment_version_takes_several_tensors(world, v, chosen, form, bad):
    """Of a list or another iterable increment_version raises the version of each tensor, as often as it is in it.
    What is no tensor is an error."""
    tensors = [world.constant(v), world.leaf(v), world.leaf(v) * 1]
    given_ones = [tensors[number] for number in chosen]
    given_ones = {"list": given_ones, "tuple": tuple(given_ones), "generator": iter(given_ones)}[form]

    torch.autograd.graph.increment_version(given_ones)

    same([t._version for t in tensors], [chosen.count(n) for n in range(3)], why=f"these were in the {form}")
    if bad == "a number":
        with raises(RuntimeError, "Iterable[Tensor]", why="3 is no tensor"):
            torch.autograd.graph.increment_version(3)
    elif bad == "a number among tensors":
        with raises(RuntimeError, "each element of the iterable to be a tensor", why="3 is no tensor"):
            torch.autograd.graph.increment_version([3, tensors[0]])
    same([t._version for t in tensors], [chosen.count(n) for n in range(3)], why="the error comes first")


@claim(observed=True, since="2.1", until="2.5")
@given(v=values(), count=st.integers(0, 2))
def spec_increment_version_takes_a_single_tensor_only(world, v, count):
    """Before torch 2.5 increment_version takes one tensor: a list is an error that counts nothing."""
    tensors = [world.constant(v) for _ in range(count)]

    with raises(RuntimeError, "expect a Tensor as input", why="this release takes a single tensor"):
        torch.autograd.graph.increment_version(tensors)

    same([t._version for t in tensors], [0] * count, why="nothing was counted")


@claim(cites=["torch_autograd/increment-version-passes-over-inference-tensors"], since="2.6")
@given(v=values(), listed=st.booleans(), inside=st.booleans())
def spec_increment_version_passes_over_inference_tensors(world, v, listed, inside):
    """increment_version does nothing to an inference tensor, which has no counter, and raises no error."""
    with torch.inference_mode():
        y = world.constant(v) * 1
    x = world.constant(v)

    with torch.inference_mode(inside):
        torch.autograd.graph.increment_version([y, x] if listed else y)

    same(x._version, 1 if listed else 0, why="the others in the list are counted")
    with raises(RuntimeError, "do not track version", why="it has no counter still"):
        same(y._version, None, why="it has no counter")


@claim(observed=True, since="2.0")
@given(v=values(layouts=WRITABLE), before=st.integers(0, 2), inside=st.integers(0, 3), fails=st.booleans())
def spec_a_preserved_version_forgets_writes(world, v, before, inside, fails):
    """After a block of torch.autograd._unsafe_preserve_version_counter, left by an exception too, a tensor has the
    version from before: writes in it go unnoticed, and backward computes with the numbers that it finds."""
    x = world.leaf(v)
    for _ in range(before):
        x.detach().add_(1)
    old = x.detach().clone()
    loss = (x * x).sum()

    try:
        with torch.autograd._unsafe_preserve_version_counter(x):
            for number in range(inside):
                x.detach().add_(1)
                same(x._version, before + number + 1, why="inside, writes count as everywhere")
            if fails:
                raise ArithmeticError("on purpose")
    except ArithmeticError:
        same(fails, True, why="the block hides no exception")

    same((x, x._version), (old + inside, before), why="the numbers are new, the version isn't")
    loss.backward()
    same(x.grad, 2 * (old + inside), why="backward didn't notice the writes")


@claim(observed=True, since="2.7")
@given(v=values(layouts=WRITABLE), writes=st.lists(st.integers(0, 3), min_size=1, max_size=3))
def spec_versions_of_several_tensors_are_preserved(world, v, writes):
    """_unsafe_preserve_version_counter takes a tuple of tensors, too, and preserves the version of each."""
    tensors = [world.constant(v).add_(number) for number in range(len(writes) + 1)]

    with torch.autograd._unsafe_preserve_version_counter(tuple(tensors[:-1])):
        for tensor, count in zip(tensors, writes, strict=False):
            for _ in range(count):
                tensor.add_(1)
        tensors[-1].add_(1)

    same(
        [t._version for t in tensors], [1] * len(writes) + [2], why="each had been written once; one isn't in the tuple"
    )


# Tensors that are written without the knowledge of y, of whose memory each has its hold.
STRANGERS = {
    "y.data": lambda y: y.data,
    "y.data[...]": lambda y: y.data[...],
    "y.detach().data": lambda y: y.detach().data,
    "y[...].data": lambda y: y[...].data,
    "copy.copy(y.detach())": lambda y: copy.copy(y.detach()),
    "torch.empty_like(y.detach()).set_(y.detach())": lambda y: torch.empty_like(y.detach()).set_(y.detach()),
}


@claim(cites=["autograd_mechanics/no-error-means-right-gradients", "autograd_mechanics/tensors-count-their-writes"])
@given(
    v=values(layouts=WRITABLE),
    name=st.sampled_from(list(STRANGERS)),
    factor=st.integers(-3, 3),
    result=st.booleans(),
)
def spec_a_write_through_data_goes_unnoticed(world, v, name, factor, result):
    """What .data gives shares the memory of a tensor but not its counter, and so does what copy.copy() gives, and
    what set_() makes of the bare memory. If a saved tensor is written through it, backward raises no
    error and computes a gradient with the new numbers."""
    x = world.leaf(v)
    y = x * 1 if result else x
    loss = (y * y).sum()
    version, old = y._version, y.detach().clone()

    STRANGERS[name](y).mul_(factor)

    same(y, factor * old, why="the memory is the same")
    same(y._version, version, why=f"{name} has a counter of its own")
    loss.backward()
    same(x.grad, 2 * factor * old, why="backward takes the numbers that it finds")


UNSAFE = {
    "torch.unsafe_split(y[None], 1)[0]": lambda y: torch.unsafe_split(y[None], 1)[0],
    "torch.unsafe_chunk(y[None], 2)[0]": lambda y: torch.unsafe_chunk(y[None], 2)[0],
    "torch.unsafe_split(y[None].expand(2, *y.shape), 1)[1]": lambda y: torch.unsafe_split(
        y[None].expand(2, *y.shape), 1
    )[1],
}


@claim(observed=True, cites=["torch/unsafe-split-is-safe-if-only-the-outputs-are-written"])
@given(v=values(layouts=WRITABLE), name=st.sampled_from(list(UNSAFE)), factor=st.integers(-3, 3), result=st.booleans())
def spec_a_write_of_an_unsafe_part_goes_unnoticed(world, v, name, factor, result):
    """The parts that unsafe_split() and unsafe_chunk() give share the memory of their input, but not its counter.
    To write one of them changes the input, also a leaf that requires grad, without an error; if the input was
    saved, backward computes with the new numbers."""
    x = world.leaf(v)
    y = x * 1 if result else x
    loss, old = (y * y).sum(), y.detach().clone()

    UNSAFE[name](y).mul_(factor)

    same((y, y._version), (factor * old, 0), why="the memory is the same, the counter isn't")
    loss.backward()
    same(x.grad, 2 * factor * old, why="nobody noticed that y had been written")


# Writes by a Python function that is called for each element.
BY_FUNCTION = {
    "y.apply_(lambda a: a + 1)": lambda y: y.apply_(lambda a: a + 1),
    "y.map_(y, lambda a, b: b + 1)": lambda y: y.map_(y, lambda a, b: b + 1),
    "y.map2_(y, y, lambda a, b, c: c + 1)": lambda y: y.map2_(y, y, lambda a, b, c: c + 1),
}


@claim(
    observed=True,
    cites=["autograd_mechanics/tensors-count-their-writes", "torch_autograd/tensors-keep-track-of-writes"],
    needs=["python-functions"],
)
@given(
    v=values(layouts=WRITABLE), name=st.sampled_from(list(BY_FUNCTION)), result=st.booleans(), times=st.integers(1, 2)
)
def spec_writes_by_a_python_function_go_unnoticed(world, v, name, result, times):
    """apply_(), map_() and map2_() are refused for what requires grad, which is left as it was, and advised for
    what is detached from it; but they count as no writes: backward computes with the new numbers."""
    x = world.leaf(v)
    y = x * 1 if result else x
    loss, old = (y * y).sum(), y.detach().clone()

    with raises(RuntimeError, "detach()", why="y requires grad"):
        BY_FUNCTION[name](y)
    same(y, old, why=f"{name} was refused")
    for _ in range(times):
        BY_FUNCTION[name](y.detach())

    same((y, y._version), (old + times, 0), why=f"{name} was run, and not counted")
    loss.backward()
    same(x.grad, 2 * (old + times), why="nobody noticed that y had been written")


@claim(cites=["autograd_mechanics/no-error-means-right-gradients"])
@given(v=values())
def spec_assigning_data_goes_unnoticed(world, v):
    """To assign to .data leaves the version as it is. If the tensor is a leaf that was saved, backward computes
    with the numbers that were assigned."""
    x = world.leaf(v)
    loss = (x * x * 3).sum()
    version = x._version
    numbers = world.constant(v) + 5

    x.data = numbers

    same((x._version, x.is_leaf), (version, True), why="nothing was written")
    loss.backward()
    same(x.grad, 6 * numbers, why="the leaf itself was saved, and it holds other numbers now")
