"""Hooks for saved tensors: a pair of functions, one to pack what is saved for backward, one to unpack it."""

import functools
import pickle

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd.graph import saved_tensors_hooks

from .kit import claim, graphs, same, values
from .kit.choices import some_of
from .saved_tensors import ANY_SOURCE, EXACT, READABLE, SOURCES


def kept_in_a_list():
    """Hooks that keep tensors in a list and pack their index."""
    storage = []

    def pack(t):
        storage.append(t.detach())
        return len(storage) - 1

    return pack, storage.__getitem__


def as_bytes(t):
    """The numbers of a tensor, and what else it takes to make it again."""
    return pickle.dumps((t.tolist(), t.dtype, t.shape)), t.device


def from_bytes(packed):
    """The tensor that as_bytes packed."""
    numbers, dtype, shape = pickle.loads(packed[0])
    return torch.tensor(numbers, dtype=dtype, device=packed[1]).reshape(shape)


def with_gaps(t):
    """The same numbers, with a gap in memory behind each."""
    return t.unsqueeze(-1).repeat(*[1] * t.dim(), 2)[..., 0]


def recorded(t):
    """The same numbers, as the result of an operation on another leaf."""
    with torch.enable_grad():
        return t.clone().requires_grad_() * 1 if t.is_floating_point() else t


# Pairs that give back what was saved: each is made anew for each use.
FAITHFUL = {
    "t.detach()": lambda: (lambda t: t.detach(), lambda packed: packed),
    "t.detach().clone()": lambda: (lambda t: t.detach().clone(), lambda packed: packed),
    "t * 4, and a quarter of it": lambda: (lambda t: (t * 4, t.dtype), lambda packed: (packed[0] / 4).to(packed[1])),
    "an index into a list": kept_in_a_list,
    "bytes": lambda: (as_bytes, from_bytes),
    "a function": lambda: (lambda t: functools.partial(torch.clone, t.detach()), lambda packed: packed()),
    "other strides": lambda: (lambda t: t.detach(), with_gaps),
    "a view": lambda: (lambda t: torch.stack([t, t]), lambda packed: packed[1]),
    "a result of another leaf": lambda: (lambda t: t.detach(), recorded),
    "a parameter": lambda: (
        lambda t: t.detach().clone(),
        lambda packed: torch.nn.Parameter(packed, requires_grad=packed.is_floating_point()),
    ),
    "small ones as they are, others as bytes": lambda: (
        lambda t: t.detach() if t.numel() < 3 else as_bytes(t),
        lambda packed: packed if isinstance(packed, torch.Tensor) else from_bytes(packed),
    ),
}
ANY_PAIR = st.sampled_from(list(FAITHFUL))


def halves(x):
    """An index for each element of x in a row, in falling order: most of them stand there twice."""
    return torch.arange(x.numel(), device=x.device).flip(0) // 2


def taken(x):
    """How often halves(x) names each element of x, in the shape and dtype of x."""
    return torch.bincount(halves(x), minlength=x.numel()).reshape(x.shape).to(x.dtype)


# Operations that graphs() lacks, in place on views and on a part of a tensor, or with indexes that are saved, and
# the gradient of the sum.
WRITTEN_OR_INDEXED = {
    "x.clone().relu_()": (lambda x: x.clone().relu_(), lambda x: (x > 0).to(x.dtype)),
    "x.clone()[...].square_()": (lambda x: x.clone()[...].square_(), lambda x: 2 * x),
    "x.clone()[None][0].mul_(x)": (lambda x: x.clone()[None][0].mul_(x), lambda x: 2 * x),
    "x.clone().view_as(x).addcmul_(x, x)": (lambda x: x.clone().view_as(x).addcmul_(x, x), lambda x: 1 + 2 * x),
    "base after a write to its view": (
        lambda x: [base := x.clone(), base[...].abs_()][0],
        lambda x: x.sign(),
    ),
    "base after two": (
        lambda x: [base := x.clone(), base[...].square_(), base.view_as(x).mul_(2)][0],
        lambda x: 4 * x,
    ),
    "half of a pair": (
        lambda x: [base := torch.stack([x, x]), base[1].mul_(x), base.sum(0)][-1],
        lambda x: 1 + 2 * x,
    ),
    "the square of a conjugate": (
        lambda x: torch.complex(x, 2 * x).conj().square().real,
        lambda x: -6 * x,
    ),
    "a product of an imaginary part": (
        lambda x: torch.complex(x, 2 * x).conj().imag * x,
        lambda x: -4 * x,
    ),
    "x.reshape(-1)[halves(x)]": (lambda x: x.reshape(-1)[halves(x)], taken),
    "x.reshape(-1).gather(0, halves(x))": (lambda x: x.reshape(-1).gather(0, halves(x)), taken),
    "x.take(halves(x))": (lambda x: x.take(halves(x)), taken),
    "x.reshape(-1).index_select(0, halves(x))": (lambda x: x.reshape(-1).index_select(0, halves(x)), taken),
    "torch.nn.functional.embedding(halves(x), x.reshape(-1, 1))": (
        lambda x: torch.nn.functional.embedding(halves(x), x.reshape(-1, 1)),
        taken,
    ),
}


@claim(
    cites=[
        "torch_autograd/unpacked-is-what-was-packed",
        "torch_autograd/packed-is-stored-instead",
        "autograd_mechanics/hooks-control-packing",
        "saved_tensor_hooks/unpack-undoes-pack",
        "saved_tensor_hooks/an-index-a-tuple-or-a-string",
        "autograd_mechanics/large-tensors-on-disk-as-printed",
    ],
    needs=["complex64", "complex128"],
)
@given(g=graphs(), pair=ANY_PAIR, v=values(), codes=some_of(WRITTEN_OR_INDEXED, 3), retained=st.booleans())
def spec_hooks_that_give_back_what_was_saved_change_no_gradient(world, g, pair, v, codes, retained):
    """If unpack makes of what pack returned a tensor with the content that was saved, gradients are what they
    are without hooks: of any operations, whatever is stored, and however the unpacked tensor is made."""
    with saved_tensors_hooks(*FAITHFUL[pair]()):
        tensors = g.build(world)
        x = world.leaf(v)
        written = [WRITTEN_OR_INDEXED[code][0](x) for code in codes]

    leaves, gradients = [tensors[name] for name in g.leaves], [g.gradients(world)[name] for name in g.leaves]
    if retained:
        cotangent = world.constant(g.cotangent)
        got = torch.autograd.grad(tensors[g.root], leaves, cotangent, retain_graph=True, allow_unused=True)
        same(got, gradients, why=f"what was saved is stored as {pair}")
    tensors[g.root].backward(world.constant(g.cotangent))
    same([leaf.grad for leaf in leaves], gradients, why=f"what was saved is stored as {pair}")
    for code, result in zip(codes, written, strict=True):
        x.grad = None
        result.sum().backward()
        same(x.grad, WRITTEN_OR_INDEXED[code][1](x.detach()), why=f"what {code} saved is stored as {pair}")


# Operations on x and w, which require grad, and k, which doesn't, that make y; and what of these each saves.
SAVED = {
    "x.pow(2)": (lambda x, w, k: x.pow(2), "x"),
    "x * w": (lambda x, w, k: x * w, "xw"),
    "x * x": (lambda x, w, k: x * x, "xx"),
    "x * k": (lambda x, w, k: x * k, "k"),
    "k * x + w": (lambda x, w, k: k * x + w, "k"),
    "x - w": (lambda x, w, k: x - w, ""),
    "x.exp()": (lambda x, w, k: x.exp(), "y"),
    "x.relu()": (lambda x, w, k: x.relu(), "y"),
    "x.clone().exp_()": (lambda x, w, k: x.clone().exp_(), "y"),
    "x.abs()": (lambda x, w, k: x.abs(), "x"),
    "x.norm()": (lambda x, w, k: x.norm(), "xy"),
    "torch.maximum(x, w)": (lambda x, w, k: torch.maximum(x, w), "xw"),
    "torch.addcmul(k, x, w)": (lambda x, w, k: torch.addcmul(k, x, w), "xw"),
    "x.clone().mul_(k)": (lambda x, w, k: x.clone().mul_(k), "k"),
    "torch.stack([x, w])": (lambda x, w, k: torch.stack([x, w]), ""),
}


@claim(
    cites=[
        "torch_autograd/pack-is-called-for-each-saved-tensor",
        "torch_autograd/pack-prints-the-saved-tensor",
        "autograd_mechanics/pack-is-called-once",
        "saved_tensor_hooks/pack-is-called-for-each-saved-tensor",
    ]
)
@given(v=values(dtypes=EXACT), codes=some_of(SAVED), computed=st.booleans(), uses=st.integers(0, 2))
def spec_pack_is_called_once_for_each_tensor_that_is_saved(world, v, codes, computed, uses):
    """While the operation runs, pack is called with each tensor that it saves, input or result, with its
    autograd history: once for each place where it is saved, and never again when it is used."""
    for code in codes:
        x, w, k = world.leaf(v), world.leaf(v), world.constant(v) + 1
        x = x * 1 if computed else x
        operation, names = SAVED[code]
        packed = []

        def pack(t, packed=packed):
            packed.append((t.detach(), t.requires_grad, t.grad_fn))
            return packed[-1][0]

        with saved_tensors_hooks(pack, lambda stored: stored):
            y = operation(x, w, k)
        count = len(packed)
        for _ in range(uses):
            y.sum().backward(retain_graph=True)

        tensors = {"x": x, "w": w, "k": k, "y": y}
        expected = [(tensors[n].detach(), tensors[n].requires_grad, tensors[n].grad_fn) for n in names]
        in_order = functools.partial(sorted, key=lambda saved: str((saved[0].tolist(), *saved[1:])))
        same((count, len(packed)), (len(names), len(names)), why=f"{code} saves {names or 'nothing'}")
        same(in_order(packed), in_order(expected), why=f"{code} saves {names or 'nothing'}")
        packed.clear()  # it refers to the graph, and that to pack


USES = ("read", "backward", "grad", "grad with create_graph")


@claim(
    cites=[
        "torch_autograd/unpack-is-called-when-accessed",
        "autograd_mechanics/unpack-can-be-called-many-times",
        "autograd_mechanics/unpack-is-called-at-each-access",
        "saved_tensor_hooks/unpack-can-be-called-many-times",
    ]
)
@given(
    v=values(dtypes=EXACT),
    code=st.sampled_from(list(READABLE)),
    uses=st.lists(st.sampled_from(USES), min_size=1, max_size=4),
)
def spec_unpack_is_called_whenever_a_saved_tensor_is_used(world, v, code, uses):
    """Unpack is called each time a saved tensor is read from its node, once, and in each backward that needs
    it, with what pack returned for this tensor."""
    x, w, stored, unpacked = world.leaf(v), world.leaf(v), [], []
    operation, attributes = READABLE[code]

    def unpack(index):
        unpacked.append(index)
        return stored[index]

    with saved_tensors_hooks(lambda t: stored.append(t.detach()) or len(stored) - 1, unpack):
        y = operation(x, w)
    tensors = {"x": x, "w": w, "y": y}
    same(unpacked, [], why="nothing was used yet")

    for use in uses:
        if use == "read":
            for attribute, name in attributes.items():
                same(getattr(y.grad_fn, attribute), tensors[name], why=f"unpack returns {name}")
                same([stored[index] for index in unpacked], [tensors[name]], why=f"{attribute} was read once")
                unpacked.clear()
        else:
            if use == "backward":
                y.sum().backward(retain_graph=True)
            else:
                torch.autograd.grad(y.sum(), x, retain_graph=True, create_graph=use != "grad")
            # x.grad alone doesn't need what is saved for w's.
            needed = len(stored) if use == "backward" else 1
            same(set(unpacked) <= set(range(len(stored))), True, why="unpack gets what pack returned")
            same(len(set(unpacked)) >= needed, True, why=f"{use} needs at least {needed} of {len(stored)}")
            unpacked.clear()


# The gradients by x and w of the sum of an operation, where u(t) is unpacked for the saved tensor t.
GRADIENTS = {
    "x.pow(2)": (lambda x, w: x.pow(2), lambda x, w, u: (2 * u(x), None)),
    "x * w": (lambda x, w: x * w, lambda x, w, u: (u(w), u(x))),
    "x * x": (lambda x, w: x * x, lambda x, w, u: (2 * u(x), None)),
    "w * x.detach()": (lambda x, w: w * x.detach(), lambda x, w, u: (None, u(x))),
    "x.abs()": (lambda x, w: x.abs(), lambda x, w, u: (u(x).sign(), None)),
    "x.relu()": (lambda x, w: x.relu(), lambda x, w, u: ((u(x.relu()) > 0).to(x.dtype), None)),
    "torch.addcmul(x, x, w)": (lambda x, w: torch.addcmul(x, x, w), lambda x, w, u: (1 + u(w), u(x))),
    "x.clone().mul_(w)": (lambda x, w: x.clone().mul_(w), lambda x, w, u: (u(w), u(x))),
    "x.clone()[...].mul_(w)": (lambda x, w: x.clone()[...].mul_(w), lambda x, w, u: (u(w), u(x))),
}


@claim(
    cites=[
        "autograd_mechanics/unpacked-is-used-in-backward",
        "saved_tensor_hooks/the-unpacked-tensor-is-used",
    ]
)
@given(
    v=values(),
    codes=some_of(GRADIENTS, 4),
    packed=st.tuples(st.sampled_from([1, 2, -1, 0]), st.integers(-2, 2)),
    unpacked=st.tuples(st.sampled_from([1, 2, -1]), st.integers(-2, 2)),
)
def spec_backward_computes_with_what_unpack_returns(world, v, codes, packed, unpacked):
    """Backward computes with the tensors that unpack returns, be they what was saved or not."""

    def through_both(t):
        return (t * packed[0] + packed[1]) * unpacked[0] + unpacked[1]

    for code in codes:
        x, w = world.leaf(v), world.leaf(v)
        operation, gradients = GRADIENTS[code]

        with saved_tensors_hooks(lambda t: t * packed[0] + packed[1], lambda t: t * unpacked[0] + unpacked[1]):
            y = operation(x, w)
        y.sum().backward()

        same(y, operation(x.detach(), w.detach()), why="hooks don't change the result")
        expected = gradients(x.detach(), w.detach(), through_both)
        same((x.grad, w.grad), expected, why=f"{code} needs what it saved, and unpack gave this for it")


OBJECTS = {
    "None": None,
    "False": False,
    "0": 0,
    "''": "",
    "[]": [],
    "'a file name'": "a file name",
    "(1, 2)": (1, 2),
    "{}": {},
    "object()": object(),
    "print": print,
    "KeyError": KeyError,
    "KeyError('an instance')": KeyError("an instance"),
    "torch.float64": torch.float64,
    "torch.zeros(())": torch.zeros(()),
    "a module": torch.nn.Identity(),
}


@claim(
    cites=[
        "autograd_mechanics/pack-can-return-any-object",
        "saved_tensor_hooks/pack-can-return-any-object",
        "torch_autograd/unpack-takes-what-pack-returned",
        "torch_autograd/unpack-prints-the-history",
    ]
)
@given(v=values(), names=st.tuples(*[st.sampled_from(list(OBJECTS))] * 2), number=st.integers(-3, 3))
def spec_pack_can_return_any_object(world, v, names, number):
    """Pack can return any Python object, None and other falsy ones as well. Unpack gets this very object, which
    has no more history than pack gave it."""
    x, w, objects = world.leaf(v), world.leaf(v), [OBJECTS[name] for name in names]
    left, unpacked = list(objects), []

    with saved_tensors_hooks(
        lambda t: left.pop(), lambda packed: unpacked.append(packed) or torch.full_like(x.detach(), number)
    ):
        y = x * w
    y.sum().backward()

    same(sorted(map(id, unpacked)), sorted(map(id, objects)), why="each is unpacked once, in whatever order")
    same([x.grad, w.grad], [torch.full_like(x, number)] * 2, why=f"unpack returned tensors full of {number}")


# What unpack returns: tensors with some autograd history or other, which the graph must not see.
HISTORIES = {
    "packed": lambda packed: packed,
    "packed.requires_grad_()": lambda packed: packed.requires_grad_(),
    "packed.clone().requires_grad_()": lambda packed: packed.clone().requires_grad_(),
    "recorded(packed)": recorded,
    "torch.nn.Parameter(packed)": lambda packed: torch.nn.Parameter(packed),
    "recorded(packed)[...]": lambda packed: recorded(packed)[...],
    "recorded(packed).unbind()[-1]": lambda packed: recorded(torch.stack([packed, packed])).unbind()[-1],
}


@claim(
    cites=[
        "autograd_mechanics/autograd-metadata-is-overwritten",
        "autograd_mechanics/hooks-disable-the-same-object",
    ]
)
@given(
    v=values(dtypes=EXACT),
    codes=some_of(READABLE),
    history=st.sampled_from(list(HISTORIES)),
    source=ANY_SOURCE,
    factor=st.sampled_from([3, -1]),
)
def spec_what_was_unpacked_has_the_history_of_what_was_saved(world, v, codes, history, source, factor):
    """A saved tensor that unpack brought back is another object than the one that was saved, and has its
    autograd history, whatever history the tensor had that unpack returned."""
    for code in codes:
        x, w, returned = SOURCES[source](world.leaf(v)), world.leaf(v), []
        operation, attributes = READABLE[code]

        def unpack(packed, returned=returned):
            returned.append(HISTORIES[history](packed))
            return returned[-1]

        with saved_tensors_hooks(lambda t: t.detach(), unpack):
            y = operation(x, w)
        tensors = {"x": x, "w": w, "y": y}
        for attribute, name in attributes.items():
            original, seen = tensors[name], []
            saved = getattr(y.grad_fn, attribute)
            same(saved, original, why=f"unpack returned the content of {name}")
            same(saved is original, False, why="it went through hooks")
            same((saved.requires_grad, saved.is_leaf), (True, original.is_leaf), why=f"{name} was saved")
            same((saved.grad_fn is original.grad_fn, saved.output_nr), (True, original.output_nr), why="as of old")
            handle = original.register_hook(lambda grad, seen=seen: seen.append(grad.clone()))
            (saved * factor).sum().backward(retain_graph=True)
            handle.remove()
            same(seen, [torch.full_like(original, factor)], why=f"the gradient by it is one by {name}")
        same([t.grad for t in returned if t.is_leaf], [None] * sum(t.is_leaf for t in returned), why="none of theirs")
    k, x = world.constant(v), world.leaf(v)
    with saved_tensors_hooks(lambda t: t.detach(), HISTORIES[history]):
        saved = (k * x).grad_fn._saved_self
    same((saved.requires_grad, saved.is_leaf, saved.grad_fn), (False, True, None), why="k is a constant")


@claim(
    cites=[
        "autograd_mechanics/hooks-disable-the-same-object",
        "saved_tensor_hooks/what-is-read-shares-storage",
    ]
)
@given(v=values(dtypes=EXACT), source=ANY_SOURCE, detached=st.booleans(), copied=st.booleans())
def spec_hooks_make_new_objects_of_a_saved_input(world, v, source, detached, copied):
    """Where it went through hooks, a saved input is read as a new object, one for each place where it was saved. It
    shares the memory of the input if what the hooks return does."""
    x = SOURCES[source](world.leaf(v))

    with saved_tensors_hooks(
        lambda t: t.detach() if detached else t, lambda packed: packed.clone() if copied else packed
    ):
        y = x * x

    first, second = y.grad_fn._saved_self, y.grad_fn._saved_other
    same((first is x, second is x, first is second), (False, False, False), why="hooks make new objects")
    same([first, second], [x, x], why="this was saved")
    shared = not copied or not x.numel()
    same(
        [t.data_ptr() == x.data_ptr() for t in (first, second)],
        [shared] * 2,
        why=f"whether unpack made a copy: {copied}",
    )


POWERS = {
    "x * x * x * x": lambda x: x * x * x * x,
    "x ** 4": lambda x: x**4,
    "(x ** 2) ** 2": lambda x: (x**2) ** 2,
    "x.clone().mul_(x).square()": lambda x: x.clone().mul_(x).square(),
    "torch.stack([x, x, x, x]).prod(0)": lambda x: torch.stack([x, x, x, x]).prod(0),
    "x.square()[...] * x * x": lambda x: x.square()[...] * x * x,
}


@claim(
    cites=[
        "autograd_mechanics/autograd-metadata-is-overwritten",
        "torch_autograd/pack-is-called-for-each-saved-tensor",
    ]
)
@given(
    v=values(),
    code=st.sampled_from(list(POWERS)),
    pair=ANY_PAIR,
    order=st.integers(2, 4),
    inside=st.booleans(),
)
def spec_derivatives_of_any_order_go_through_hooks(world, v, code, pair, order, inside):
    """Though pack stores tensors without history, derivatives of higher order are right. What a backward with
    create_graph saves is packed, too, if it runs in the context."""
    x, packed = world.leaf(v), []
    pack, unpack = FAITHFUL[pair]()
    hooks = saved_tensors_hooks(lambda t: packed.append("one") or pack(t), unpack)

    with hooks:
        derivative = POWERS[code](x)
    for number in range(order):
        before = len(packed)
        if inside:
            with hooks:
                (derivative,) = torch.autograd.grad(derivative.sum(), x, create_graph=True)
        else:
            (derivative,) = torch.autograd.grad(derivative.sum(), x, create_graph=True)
        if number < 2:  # then a linear function is left, which may save nothing
            same(len(packed) > before, inside, why="the backward was recorded, and it saved powers of x")

    expected = {2: 12 * x.detach() ** 2, 3: 24 * x.detach(), 4: torch.full_like(x, 24)}[order]
    same(derivative, expected, why=f"this is derivative number {order} of x ** 4")
