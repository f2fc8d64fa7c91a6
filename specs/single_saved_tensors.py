"""register_hooks: hooks for a single saved tensor, set when it is saved already."""

import contextlib

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd.graph import saved_tensors_hooks

from .kit import claim, raises, same, values
from .kit.choices import some_of
from .saved_tensor_hooks import FAITHFUL
from .saved_tensors import ANY_SOURCE, EXACT, FREEING, READABLE, SOURCES


@claim(
    cites=[
        "autograd_mechanics/single-tensors-take-hooks",
        "autograd_mechanics/pack-is-called-when-registered",
        "autograd_mechanics/unpack-is-called-at-each-access",
    ]
)
@given(
    v=values(dtypes=EXACT),
    codes=some_of(READABLE),
    which=st.integers(0, 1),
    factor=st.sampled_from([2, -1]),
    retained=st.booleans(),
)
def spec_register_hooks_concerns_one_saved_tensor(world, v, codes, which, factor, retained):
    """register_hooks on a saved tensor calls pack at once, and once only; from then on unpack gives this tensor
    to whoever reads it and to backward. The others are as they were."""
    for code in codes:
        x, w, log = world.leaf(v), world.leaf(v), []
        operation, attributes = READABLE[code]
        y = operation(x, w)
        tensors, names = {"x": x, "w": w, "y": y}, list(attributes)
        chosen = names[which % len(names)]

        raw = getattr(y.grad_fn, chosen.replace("_saved_", "_raw_saved_"))
        raw.register_hooks(
            lambda t, log=log: log.append("pack") or (t.detach() * factor,),
            lambda packed, log=log: log.append("unpack") or packed[0],
        )
        same(log, ["pack"], why="it is packed at once")
        for attribute, name in attributes.items():
            here = tensors[name].detach() * factor if attribute == chosen else tensors[name]
            same(getattr(y.grad_fn, attribute), here, why=f"the hooks were set on {chosen}")
        same(log, ["pack", "unpack"], why=f"{chosen} was read once")
        if retained:
            y.sum().backward(retain_graph=True)
        y.sum().backward()
        same(log, ["pack"] + ["unpack"] * (2 + retained), why="each backward unpacks it")


@claim(cites=["autograd_mechanics/single-tensors-take-hooks", "autograd_mechanics/unpacked-is-used-in-backward"])
@given(v=values(), w=values(), hooked=st.sampled_from(["_raw_saved_self", "_raw_saved_other", ""]), mixed=st.booleans())
def spec_backward_computes_with_what_single_hooks_return(world, v, w, hooked, mixed):
    """Backward computes with what the hooks of a single saved tensor return, and with the tensors that were saved
    where there are none."""
    x, factor = world.leaf(v), torch.full_like(world.constant(v), 3).requires_grad_()
    y = (x * 1 if mixed else x) * factor

    if hooked:
        getattr(y.grad_fn, hooked).register_hooks(lambda t: t * 5, lambda packed: packed + 1)
    y.sum().backward()

    same(x.grad, torch.full_like(x, 16 if hooked == "_raw_saved_other" else 3), why=f"hooks are on {hooked}")
    expected = x.detach() * 5 + 1 if hooked == "_raw_saved_self" else x.detach()
    same(factor.grad, expected, why=f"hooks are on {hooked}")


@claim(observed=True)
@given(v=values(dtypes=EXACT), codes=some_of(READABLE), source=ANY_SOURCE, alone=st.booleans())
def spec_a_context_packs_the_input_itself_and_register_hooks_a_detached_one(world, v, codes, source, alone):
    """In a context, pack gets a saved input as the very tensor object that went into the operation.
    register_hooks gives pack another one without history, of an input or a result."""
    for code in codes:
        x, w, seen = SOURCES[source](world.leaf(v)), world.leaf(v), []
        operation, attributes = READABLE[code]

        def pack(t, seen=seen):
            seen.append(t)
            return t.detach()

        if alone:
            y = operation(x, w)
            for attribute in attributes:
                raw = getattr(y.grad_fn, attribute.replace("_saved_", "_raw_saved_"))
                raw.register_hooks(pack, lambda packed: packed)
            same([(t.requires_grad, t.grad_fn) for t in seen], [(False, None)] * len(attributes), why="detached")
            same(seen, [{"x": x, "w": w, "y": y}[name] for name in attributes.values()], why=f"{code} saved them")
        else:
            with saved_tensors_hooks(pack, lambda packed: packed):
                y = operation(x, w)
            for number, t in enumerate([x, w]):
                expected = "xw"[number] in attributes.values()
                same(any(one is t for one in seen), expected, why=f"whether {code} saved it")
        seen.clear()  # it refers to the graph, and that to pack


# Whether a SavedTensor takes hooks: what was done with its graph before, and what the error tells.
REFUSED = {
    "hooks were registered": ("already been set", lambda y, raw: raw.register_hooks(*FAITHFUL["t.detach()"]())),
    "backward": ("after it has been freed", lambda y, raw: FREEING["backward"](y.sum(), None)),
    "a retained one, and another": (
        "after it has been freed",
        lambda y, raw: FREEING["after a retained backward"](y.sum(), None),
    ),
}


@claim(
    cites=[
        "autograd_mechanics/registering-on-a-freed-tensor-is-forbidden",
        "torch_autograd/only-the-inner-most-pair-applies",
    ]
)
@given(v=values(dtypes=EXACT), codes=some_of(READABLE), done=st.sampled_from(["a context", *REFUSED]))
def spec_register_hooks_refuses_tensors_that_have_hooks_or_are_freed(world, v, codes, done):
    """register_hooks raises an error, and calls no hook, on a saved tensor that has hooks already, of its own or
    of a context, and on one that was freed. The hooks that it has stay."""
    for code in codes:
        x, w, log = world.leaf(v), world.leaf(v), []
        operation, attributes = READABLE[code]
        attribute, name = next(iter(attributes.items()))
        with saved_tensors_hooks(*FAITHFUL["t.detach()"]()) if done == "a context" else contextlib.nullcontext():
            y = operation(x, w)
        raw = getattr(y.grad_fn, attribute.replace("_saved_", "_raw_saved_"))
        telling, do = REFUSED.get(done, ("already been set", lambda y, raw: None))
        do(y, raw)

        for _ in range(2):
            with raises(RuntimeError, telling, why=f"{done} came before"):
                raw.register_hooks(lambda t, log=log: log.append(t), lambda packed, log=log: log.append(packed))
        same(log, [], why="the hooks were refused")
        if telling == "already been set":
            same(getattr(y.grad_fn, attribute), {"x": x, "w": w, "y": y}[name], why="the first hooks are in force")
            y.sum().backward()
        same(x.grad is None, False, why="a backward came to x")


@claim(cites=["autograd_mechanics/tensors-are-saved-as-needed"], observed=True)
@given(v=values(), first=st.booleans())
def spec_register_hooks_refuses_what_was_not_saved(world, v, first):
    """Where an operation had no need to save an operand, the attribute is None, and register_hooks on it raises an
    error that says so."""
    x, k = world.leaf(v), world.constant(v)
    y = x * k if first else k * x
    name = "self" if first else "other"

    same(getattr(y.grad_fn, f"_saved_{name}"), None, why="only the gradient by the constant k would need x")
    with raises(RuntimeError, "None is forbidden", why="there is no tensor to pack"):
        getattr(y.grad_fn, f"_raw_saved_{name}").register_hooks(lambda t: t, lambda packed: packed)

    y.sum().backward()
    same(x.grad, k, why="nothing was changed")
