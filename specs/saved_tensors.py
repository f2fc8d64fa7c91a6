"""Saved tensors: what the graph keeps of the forward pass for the backward pass, and until when."""

import weakref

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import WRITABLE, claim, raises, same, values
from .kit.choices import some_of

EXACT = ("float64", "float32", "bfloat16")


class TwiceSaved(torch.autograd.Function):
    """A function that saves its result."""

    @staticmethod
    def forward(ctx, x):
        """Two times x."""
        y = x * 2
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, cotangent):
        """Two times the cotangent."""
        return ctx.saved_tensors[0] * 0 + cotangent * 2


# Operations that make y of x and w, and which of the three each attribute of y.grad_fn holds.
READABLE = {
    "x.pow(2)": (lambda x, w: x.pow(2), {"_saved_self": "x"}),
    "x.exp()": (lambda x, w: x.exp(), {"_saved_result": "y"}),
    "x * w": (lambda x, w: x * w, {"_saved_self": "x", "_saved_other": "w"}),
    "torch.atan2(w, x)": (lambda x, w: torch.atan2(w, x), {"_saved_self": "w", "_saved_other": "x"}),
    "x.abs()": (lambda x, w: x.abs(), {"_saved_self": "x"}),
    "x.relu()": (lambda x, w: x.relu(), {"_saved_result": "y"}),
    "x.sin()": (lambda x, w: x.sin(), {"_saved_self": "x"}),
    "x.tanh()": (lambda x, w: x.tanh(), {"_saved_result": "y"}),
    "x.norm()": (lambda x, w: x.norm(), {"_saved_self": "x", "_saved_result": "y"}),
    "torch.maximum(x, w)": (lambda x, w: torch.maximum(x, w), {"_saved_self": "x", "_saved_other": "w"}),
    "torch.addcmul(x, x, w)": (
        lambda x, w: torch.addcmul(x, x, w),
        {"_saved_tensor1": "x", "_saved_tensor2": "w"},
    ),
    "x.clone().exp_()": (lambda x, w: x.clone().exp_(), {"_saved_result": "y"}),
    "x.clone().mul_(w)": (lambda x, w: x.clone().mul_(w), {"_saved_other": "w"}),
}

# What is saved: a leaf, or a result with its values.
SOURCES = {
    "x": lambda x: x,
    "x * 1": lambda x: x * 1,
    "x[...]": lambda x: x[...],
    "torch.nn.Parameter(x.detach())": lambda x: torch.nn.Parameter(x.detach()),
    "torch.stack([x, x])[1]": lambda x: torch.stack([x, x])[1],
    "torch.stack([-x, x]).unbind()[1]": lambda x: torch.stack([-x, x]).unbind()[1],
}
ANY_SOURCE = st.sampled_from(list(SOURCES))


@claim(
    cites=[
        "torch_autograd/saved-tensors-are-attributes-of-the-node",
        "autograd_mechanics/saved-tensors-can-be-explored",
        "autograd_mechanics/saved-results-share-storage",
        "saved_tensor_hooks/saved-tensors-can-be-read",
        "saved_tensor_hooks/the-graph-copies-no-tensor",
        "saved_tensor_hooks/what-is-read-shares-storage",
    ]
)
@given(v=values(dtypes=EXACT), codes=some_of(READABLE), source=ANY_SOURCE, retained=st.booleans())
def spec_what_an_operation_saved_can_be_read_from_its_node(world, v, codes, source, retained):
    """The tensors that an operation saved for backward, of its inputs and its result, can be read from its
    grad_fn as attributes that begin with _saved_, as often as one likes. They are no copies: they have the
    memory of the tensors that were saved, also when these are forgotten."""
    for code in codes:
        x, w = SOURCES[source](world.leaf(v)), world.leaf(v)
        operation, attributes = READABLE[code]
        tensors = {"x": x, "w": w, "y": operation(x, w)}
        node = tensors["y"].grad_fn
        expected = {a: (tensors[n].detach(), tensors[n].data_ptr()) for a, n in attributes.items()}

        for attribute, (numbers, address) in expected.items():
            saved = getattr(node, attribute)
            same(saved, numbers, why=f"{code} saved {attributes[attribute]}")
            same((saved.data_ptr(), saved.stride()), (address, numbers.stride()), why="it isn't copied")
        if retained:
            tensors["y"].sum().backward(retain_graph=True)
        del x, w, tensors, saved
        for attribute, (numbers, address) in expected.items():
            same(getattr(node, attribute), numbers, why="the graph keeps what it saved")
            same(getattr(node, attribute).data_ptr(), address, why="the graph keeps what it saved")


@claim(
    cites=[
        "autograd_mechanics/a-saved-input-is-the-same-object",
        "autograd_mechanics/a-saved-result-is-another-object",
        "saved_tensor_hooks/saved-inputs-are-the-original-objects",
        "saved_tensor_hooks/saved-results-are-other-objects",
    ],
    observed=True,
)
@given(v=values(dtypes=EXACT), codes=some_of(READABLE), source=ANY_SOURCE)
def spec_a_saved_input_is_read_as_the_very_tensor(world, v, codes, source):
    """A saved input is read as the very tensor object that went into the operation. A saved result is read as
    another object than the one that the operation returned."""
    for code in codes:
        x, w = SOURCES[source](world.leaf(v)), world.leaf(v)
        operation, attributes = READABLE[code]
        tensors = {"x": x, "w": w, "y": operation(x, w)}

        for attribute, name in attributes.items():
            found = getattr(tensors["y"].grad_fn, attribute) is tensors[name]
            same(found, name != "y", why=f"{code} saved {name} as {attribute}")


@claim(
    cites=["autograd_mechanics/saved-tensors-can-be-explored", "autograd_mechanics/a-saved-result-is-another-object"]
)
@given(v=values(dtypes=EXACT), codes=some_of(READABLE), source=ANY_SOURCE, factor=st.sampled_from([3, -1, 2]))
def spec_what_is_read_has_the_history_of_what_was_saved(world, v, codes, source, factor):
    """A saved tensor that is read, input or result, has the autograd history of the tensor that was saved:
    gradients flow through it into the same graph."""
    for code in codes:
        x, w = SOURCES[source](world.leaf(v)), world.leaf(v)
        operation, attributes = READABLE[code]
        tensors = {"x": x, "w": w, "y": operation(x, w)}

        for attribute, name in attributes.items():
            original, seen = tensors[name], []
            saved = getattr(tensors["y"].grad_fn, attribute)
            same((saved.requires_grad, saved.is_leaf), (True, original.is_leaf), why=f"{name} was saved")
            same(saved.output_nr, original.output_nr, why=f"{name} was saved")
            same(saved.grad_fn is original.grad_fn, True, why=f"the same operation made it and {name}")
            handle = original.register_hook(lambda grad, seen=seen: seen.append(grad.clone()))
            (saved * factor).sum().backward(retain_graph=True)
            handle.remove()
            same(seen, [torch.full_like(original, factor)], why=f"the gradient by it is one by {name}")


# Indexes for three dimensions of two elements or one, and what is saved of them.
INDEXES = {
    "[0, 0]": (lambda zeros: (zeros,), [True]),
    ":, [0, 0]": (lambda zeros: (slice(None), zeros), [False, True]),
    "[0, 0], :, [0, 0]": (lambda zeros: (zeros, slice(None), zeros), [True, False, True]),
    ":, :, [0, 0]": (lambda zeros: (slice(None), slice(None), zeros), [False, False, True]),
}


@claim(
    cites=[
        "torch_autograd/saved-tensors-are-attributes-of-the-node",
        "autograd_mechanics/single-tensors-take-hooks",
    ],
    observed=True,
)
@given(v=values(shapes=((2, 1, 2), (1, 1, 1), (2, 2, 2))), code=st.sampled_from(list(INDEXES)), hooked=st.booleans())
def spec_a_list_of_tensors_is_saved_as_a_tuple(world, v, code, hooked):
    """What an operation saved of a list of tensors is read as a tuple with None where the list has none; hooks can
    be registered on each of its members. Once it is freed, reading it raises an error."""
    x, zeros = world.leaf(v), torch.tensor([0, 0], device=world.device)
    index, saved = INDEXES[code]
    y, calls = x[index(zeros)], []

    if hooked:
        y.grad_fn._raw_saved_indices[-1].register_hooks(
            lambda t: calls.append("pack") or t.tolist(),
            lambda packed: calls.append("unpack") or torch.tensor(packed, device=zeros.device),
        )
    for _ in range(2):
        same(y.grad_fn._saved_indices, tuple(zeros if there else None for there in saved), why=f"x[{code}]")
    y.sum().backward()

    same(calls, ["pack", "unpack", "unpack", "unpack"] * hooked, why="they were read twice, and backward ran")
    counts = torch.zeros_like(x.detach())
    counts[index(zeros[:1])] = 2
    same(x.grad, counts, why=f"x[{code}] takes the first twice")
    with raises(RuntimeError, "retain_graph=True", why="the indexes are freed"):
        len(y.grad_fn._saved_indices)


# Operations that save their input, and no other tensor that would keep it.
SAVING_INPUT = {
    "x * x": lambda x: x * x,
    "x.pow(2)": lambda x: x.pow(2),
    "x.abs()": lambda x: x.abs(),
    "x.clamp(-5, 5)": lambda x: x.clamp(-5, 5),
    "torch.maximum(x, -x)": lambda x: torch.maximum(x, -x),
    "x / 2 * x": lambda x: x / 2 * x,
    "x.clone().mul_(x)": lambda x: x.clone().mul_(x),
    "torch.addcmul(x, x, x)": lambda x: torch.addcmul(x, x, x),
    "torch.atan2(x, x + 1)": lambda x: torch.atan2(x, x + 1),
}
CHAIN = st.lists(st.sampled_from(list(SAVING_INPUT)), min_size=1, max_size=4)


@claim(
    cites=[
        "saved_tensor_hooks/the-graph-keeps-saved-tensors",
        "saved_tensor_hooks/saved-data-is-released",
        "torch_autograd/graph-is-freed-unless-retained",
    ]
)
@given(
    v=values(),
    codes=CHAIN,
    retained=st.integers(0, 2),
    end=st.sampled_from(["backward", "grad", "backward with inputs", "forget"]),
)
def spec_saved_tensors_live_until_the_graph_is_freed(world, v, codes, retained, end):
    """The graph keeps the tensors that were saved alive, though nothing else refers to them, until a backward
    that doesn't retain the graph, or until the graph itself is forgotten. Then they are gone at once."""
    x = world.leaf(v)
    y, saved = x * 1, []
    for code in codes:
        saved.append(weakref.ref(y))
        y = SAVING_INPUT[code](y)
    loss = y.sum()
    del y

    for _ in range(retained):
        loss.backward(retain_graph=True)
    same([ref() is not None for ref in saved], [True] * len(codes), why="another backward may come")

    if end == "backward":
        loss.backward()
    elif end == "grad":
        torch.autograd.grad(loss, x)
    elif end == "backward with inputs":
        loss.backward(inputs=[x])
    else:
        del loss
    same([ref() is None for ref in saved], [True] * len(codes), why=f"after {end} nobody needs them")


def without_grad(make, x):
    """make(x) while recording is turned off."""
    with torch.set_grad_enabled(False):
        return make(x)


NOT_RECORDED = {
    "no_grad": lambda make, x: torch.no_grad()(make)(x),
    "set_grad_enabled(False)": without_grad,
    "inference_mode": lambda make, x: torch.inference_mode()(make)(x.detach()),
    "x.detach()": lambda make, x: make(x.detach()),
}


@claim(cites=["saved_tensor_hooks/the-graph-keeps-saved-tensors"])
@given(v=values(), codes=CHAIN, way=st.sampled_from(list(NOT_RECORDED)))
def spec_what_is_not_recorded_saves_nothing(world, v, codes, way):
    """Operations that aren't recorded, in a mode or on tensors that don't require grad, save nothing: their
    intermediate results are gone as soon as nobody refers to them."""
    x = world.leaf(v)
    steps = [NOT_RECORDED[way](lambda x: x * 1, x)]
    for code in codes:
        steps.append(NOT_RECORDED[way](SAVING_INPUT[code], steps[-1]))
    intermediate = [weakref.ref(step) for step in steps[:-1]]

    y = steps[-1]
    del steps

    same([ref() is None for ref in intermediate], [True] * len(codes), why="no graph refers to them")
    same(y.requires_grad, False, why="nothing was recorded")


# For each of two operands, a and b: whether a gradient needs it, given whether a and b require grad.
NEEDED = {
    "a * b": (lambda a, b: a * b, lambda a, b: b, lambda a, b: a),
    "a + b": (lambda a, b: a + b, lambda a, b: False, lambda a, b: False),
    "a / b": (lambda a, b: a / b, lambda a, b: b, lambda a, b: a or b),
    "torch.stack([a, b])": (lambda a, b: torch.stack([a, b]), lambda a, b: False, lambda a, b: False),
    "torch.addcmul(a, a, b)": (lambda a, b: torch.addcmul(a, a, b), lambda a, b: b, lambda a, b: a),
    "torch.maximum(a, b)": (lambda a, b: torch.maximum(a, b), lambda a, b: a or b, lambda a, b: a or b),
    "a.clone().mul_(b)": (lambda a, b: a.clone().mul_(b), lambda a, b: False, lambda a, b: a),
    "a.exp() - b.relu()": (lambda a, b: a.exp() - b.relu(), lambda a, b: False, lambda a, b: False),
    "a.sum() + b.t()": (lambda a, b: a.sum() + b.reshape(-1).t(), lambda a, b: False, lambda a, b: False),
}


@claim(cites=["autograd_mechanics/tensors-are-saved-as-needed"], observed=True)
@given(v=values(), code=st.sampled_from(list(NEEDED)), by=st.sampled_from([(1, 1), (1, 0), (0, 1)]))
def spec_only_what_a_gradient_needs_is_saved(world, v, code, by):
    """An operation saves those of its operands that the gradient by a tensor that requires grad needs, and no
    others: the second factor of a product for the first one's gradient, and neither term of a sum."""
    operation, needs_first, needs_second = NEEDED[code]
    sources = [world.leaf(v) if required else world.constant(v) for required in by]
    a, b = [source * 1 for source in sources]
    references = [weakref.ref(a), weakref.ref(b)]

    y = operation(a, b)
    del a, b

    kept = [ref() is not None for ref in references]
    expected = [bool(needs_first(*by)), bool(needs_second(*by))]
    same(kept, expected, why=f"of {code} it is known which operands require grad: {by}")
    same(y.requires_grad, True, why="one of them does")


# Operations that save their result, in place and on views as well.
SAVING_RESULT = {
    "y.exp()": lambda y: y.exp(),
    "y.relu()": lambda y: y.relu(),
    "y.sigmoid()": lambda y: y.sigmoid(),
    "y.prod()": lambda y: y.prod(),
    "y.reshape(-1).cumprod(0)": lambda y: y.reshape(-1).cumprod(0),
    "y.softmax(-1)": lambda y: y.softmax(-1),
    "y.norm()": lambda y: y.norm(),
    "y.clone().exp_()": lambda y: y.clone().exp_(),
    "y.clone().relu_()": lambda y: y.clone().relu_(),
    "y.clone().view_as(y).sigmoid_()": lambda y: y.clone().view_as(y).sigmoid_(),
    "y.clone()[None][0].relu_()": lambda y: y.clone()[None][0].relu_(),
    "torch.cat([y.reshape(-1)])[:1].tanh_()": lambda y: torch.cat([y.reshape(-1)])[:1].tanh_(),
    "TwiceSaved.apply(y)": lambda y: TwiceSaved.apply(y),
    "TwiceSaved.apply(y).relu_()": lambda y: TwiceSaved.apply(y * 1).clone().relu_(),
}
AFTERWARDS = {
    "nothing": lambda z: None,
    "read what was saved": lambda z: [getattr(z.grad_fn, name) for name in dir(z.grad_fn) if "saved" in name],
    "backward": lambda z: z.sum().backward(),
    "backward, retained": lambda z: z.sum().backward(retain_graph=True),
    "a view of it": lambda z: z.reshape(-1).grad_fn,
}


@claim(
    cites=[
        "autograd_mechanics/packing-prevents-reference-cycles",
        "saved_tensor_hooks/saved-results-are-other-objects",
    ]
)
@given(v=values(), codes=some_of(SAVING_RESULT), afterwards=st.sampled_from(list(AFTERWARDS)))
def spec_a_saved_result_makes_no_reference_cycle(world, v, codes, afterwards):
    """A node that saved the result of its own operation doesn't keep itself alive: when the last reference to
    the result goes, the graph goes at once, used or not."""
    for code in codes:
        x = world.leaf(v)
        a = x * 1
        z = SAVING_RESULT[code](a * a)  # as long as this graph lives, it refers to a
        reference = weakref.ref(a)
        del a

        AFTERWARDS[afterwards](z)
        del z

        same(reference() is None, True, why=f"nothing refers to the graph of {code} any more")


FREEING = {
    "backward": lambda loss, x: loss.backward(),
    "backward with inputs": lambda loss, x: loss.backward(inputs=[x]),
    "grad": lambda loss, x: torch.autograd.grad(loss, x),
    "grad with create_graph": lambda loss, x: torch.autograd.grad(loss, x, retain_graph=False, create_graph=True),
    "after a retained backward": lambda loss, x: (loss.backward(retain_graph=True), loss.backward()),
}


@claim(cites=["torch_autograd/graph-is-freed-unless-retained", "torch_autograd/freed-tensors-cannot-be-read"])
@given(v=values(dtypes=EXACT), codes=some_of(READABLE), way=st.sampled_from(list(FREEING)))
def spec_reading_a_freed_saved_tensor_raises(world, v, codes, way):
    """After a backward that freed them, reading a saved tensor from the node raises an error that tells to
    retain the graph, each time; the tensors themselves and their gradients are as they were."""
    for code in codes:
        x, w = world.leaf(v), world.leaf(v)
        operation, attributes = READABLE[code]
        y = operation(x, w)
        FREEING[way](y.sum(), x)
        grad, numbers = x.grad, y.detach().clone()

        for attribute in [*attributes, *attributes]:
            with raises(RuntimeError, "retain_graph=True", why=f"{way} freed what {code} saved"):
                getattr(y.grad_fn, attribute)

        same(x, world.constant(v), why="it is the graph's reference that is gone")
        same(y, numbers, why="it is the graph's reference that is gone")
        same(x.grad is grad, True, why="nothing was computed")


def is_readable(node):
    """Whether what the node saved hasn't been freed."""
    try:
        return node._saved_self is not None
    except RuntimeError:
        return False


@claim(cites=["torch_autograd/graph-is-freed-unless-retained"])
@given(v=values(), length=st.integers(1, 4), at=st.integers(0, 4), stop=st.sampled_from(["inputs", "hook"]))
def spec_backward_frees_the_part_of_the_graph_that_it_passed(world, v, length, at, stop):
    """A backward that ends in the middle of the graph, at a tensor by which grad() differentiates or at a hook
    that raises an error, frees what it has passed. What lies below can be read and differentiated."""
    x, w = world.leaf(v), world.leaf(v)
    steps = [x]
    for _ in range(length):
        steps.append(steps[-1] * w)
    at %= length + 1
    loss = steps[-1].sum()

    if stop == "inputs":
        torch.autograd.grad(loss, steps[at])
    else:
        handle = steps[at].register_hook(lambda grad: {}["no such key"])
        with raises(KeyError, why="the hook raises it"):
            loss.backward()
        handle.remove()

    readable = [is_readable(step.grad_fn) for step in steps[1:]]
    same(readable, [number <= at for number in range(1, length + 1)], why=f"backward came down to step {at}")
    same(x.grad, None, why="backward didn't come to x, or wasn't to write into it")
    steps[at].sum().backward()
    factor = torch.ones_like(w).detach()
    for _ in range(at):
        factor = factor * w.detach()
    same(x.grad, factor, why=f"this part of the graph multiplies by w {at} times")


CHANGES = {
    "t.add_(1)": lambda t: t.add_(1),
    "t.zero_()": lambda t: t.zero_(),
    "t.copy_(t.clone())": lambda t: t.copy_(t.clone()),
    "t[...] = 2": lambda t: t.__setitem__(..., 2),
    "t.detach().mul_(2)": lambda t: t.detach().mul_(2),
    "t.view_as(t).neg_()": lambda t: t.view_as(t).neg_(),
    "t[None][0].fill_(7)": lambda t: t[None][0].fill_(7),
    "torch.abs(t, out=t)": lambda t: torch.abs(t, out=t),
    "torch._foreach_add_([t], 1)": lambda t: torch._foreach_add_([t], 1),
}


@claim(cites=["autograd_mechanics/changed-saved-tensor-raises"])
@given(
    v=values(layouts=WRITABLE, dtypes=EXACT),
    codes=some_of(READABLE, 4),
    change=st.sampled_from(list(CHANGES)),
    changed=st.sampled_from(["x", "w", "y"]),
    computed=st.booleans(),
)
def spec_reading_a_changed_saved_tensor_raises(world, v, codes, change, changed, computed):
    """Reading a saved tensor, input or result, that was changed in place since raises an error, if the change
    was made through a view or under no_grad as well. Others that the operation saved can be read."""
    for code in codes:
        x, w = world.leaf(v), world.leaf(v)
        x = x * 1 if computed else x
        operation, attributes = READABLE[code]
        tensors = {"x": x, "w": w, "y": operation(x, w)}

        with torch.no_grad():
            CHANGES[change](tensors[changed])

        for attribute, name in attributes.items():
            if name == changed:
                with raises(RuntimeError, "modified by an inplace operation", why=f"{change} changed {name}"):
                    getattr(tensors["y"].grad_fn, attribute)
            else:
                saved = getattr(tensors["y"].grad_fn, attribute)
                same(saved, tensors[name], why=f"{name} wasn't changed, only {changed} was")


@claim(observed=True, since="2.0")
@given(v=values(), codes=st.sets(st.sampled_from(["y * w", "y.abs()", "y.pow(2)", "torch.maximum(y, w)"]), min_size=1))
def spec_a_result_detached_in_place_is_no_saved_tensor_any_more(world, v, codes):
    """If a saved input is detached in place afterwards, with detach_(), backward raises an error that tells to
    use detach(). No gradient comes to the leaves below; new graphs can be made with it."""
    x, w = world.leaf(v), world.leaf(v)
    operations = {
        "y * w": lambda y: y * w,
        "y.abs()": lambda y: y.abs(),
        "y.pow(2)": lambda y: y.pow(2),
        "torch.maximum(y, w)": lambda y: torch.maximum(y, w),
    }
    for code in sorted(codes):
        y = x * 1
        loss = operations[code](y).sum()

        y.detach_()

        with raises(RuntimeError, ".detach()", why=f"{code} saved y with its history"):
            loss.backward()
        same((x.grad, w.grad), (None, None), why="there was no gradient")
        (y * w).sum().backward()
        same((x.grad, w.grad), (None, y), why="y is a constant now")
        w.grad = None
