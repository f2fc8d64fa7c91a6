"""Views that are taken where nothing is recorded: under no_grad and in inference mode."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import SHAPES, SMALL_DTYPES, WRITABLE, claim, raises, same, values
from .kit.choices import some_of
from .kit.modes import QUIET

ANY_DTYPE = (*SMALL_DTYPES, "complex64")
ANY_QUIET_MODE = st.sampled_from(list(QUIET))

VIEWS = {
    "x[...]": lambda x: x[...],
    "x[:1]": lambda x: x[:1],
    "x[..., ::2]": lambda x: x[..., ::2],
    "x.view(x.shape)": lambda x: x.view(x.shape),
    "x.view_as(x)": lambda x: x.view_as(x),
    "x.unsqueeze(0)": lambda x: x.unsqueeze(0),
    "x.unsqueeze(0).squeeze(0)": lambda x: x.unsqueeze(0).squeeze(0),
    "x.transpose(0, -1)": lambda x: x.transpose(0, -1),
    "x.mT of two views": lambda x: x.unsqueeze(0).unsqueeze(0).mT,
    "x.expand(2, *x.shape)": lambda x: x.expand(2, *x.shape),
    "x.unbind(0)[0]": lambda x: x.unbind(0)[0],
    "x.split(1)[-1]": lambda x: x.split(1)[-1],
    "x.narrow(0, 0, 1)": lambda x: x.narrow(0, 0, 1),
    "x.unfold(0, 1, 1)": lambda x: x.unfold(0, 1, 1),
    "x.as_strided((1,), (1,))": lambda x: x.as_strided((1,), (1,)),
    "x.unsqueeze(0).diagonal(0, 0, 1)": lambda x: x.unsqueeze(0).diagonal(0, 0, 1),
    "x.alias": lambda x: torch.ops.aten.alias(x),
}

# These share memory with x as well, but have never anything to do with its history.
UNLINKED = {
    "x.detach()": lambda x: x.detach(),
    "x.data": lambda x: x.data,
    "torch.no_grad()(x.detach)()": lambda x: torch.no_grad()(x.detach)(),
}
LOOKS = VIEWS | UNLINKED

# Writes into t, a view, with an operand k.
WRITES = {
    "t.mul_(2)": lambda t, k: t.mul_(2),
    "t.mul_(k)": lambda t, k: t.mul_(k),
    "t += k": lambda t, k: t.__iadd__(k),
    "t.copy_(k)": lambda t, k: t.copy_(k),
    "t.zero_()": lambda t, k: t.zero_(),
    "t[...] = 2": lambda t, k: t.__setitem__(..., 2),
    "t[...] = k": lambda t, k: t.__setitem__(..., k),
    "t.neg_()": lambda t, k: t.neg_(),
}


@claim(
    observed=True,
    cites=["torch_autograd/no-grad-results-do-not-require-grad", "torch_autograd/inference-mode-records-nothing"],
    formerly=["grad_modes/a_view_taken_under_no_grad_requires_grad_but_passes_none_on"],
)
@given(
    v=values(shapes=SHAPES[1:9], layouts=("contiguous",)),  # others are views themselves
    views=some_of(VIEWS, 4),
    computed=st.booleans(),
    quiet=ANY_QUIET_MODE,
)
def spec_a_view_taken_under_no_grad_requires_grad_but_passes_none_on(world, v, views, computed, quiet):
    """A view of a tensor that requires grad, taken with grad mode off or in inference mode, says that it
    requires grad as well; but it has no grad_fn, and no gradient flows through it to its base."""
    x = world.leaf(v)
    base = x * 1 if computed else x

    for view in views:
        with QUIET[quiet]():
            seen = VIEWS[view](base)

        same(seen, VIEWS[view](base.detach()), why="it is a view")
        same(seen.requires_grad, True, why="its base requires grad")
        same(seen.grad_fn, None, why=f"nothing is recorded inside {quiet}")
        (seen * 2).sum().backward()
        same(x.grad, None, why="the view isn't connected to its base")


@claim(cites=["autograd_mechanics/no-error-means-right-gradients"])
@given(
    v=values(shapes=SHAPES[1:9], layouts=("contiguous",)),
    views=some_of(VIEWS, 4),
    write=st.sampled_from(list(WRITES)),
    computed=st.booleans(),
    quiet=ANY_QUIET_MODE,
    operand=st.booleans(),
)
def spec_a_view_taken_under_no_grad_is_not_written_in_grad_mode(world, v, views, write, computed, quiet, operand):
    """To write in grad mode into a view that was taken with grad mode off or in inference mode, and whose
    base requires grad, is an error that tells the mode. Neither the view nor the base is changed by it."""
    x = world.leaf(v)
    base = x * 1 if computed else x
    history = base.grad_fn

    for view in views:
        with QUIET[quiet]():
            seen = VIEWS[view](base)
        other = torch.full_like(seen, 2).requires_grad_(operand)
        telling = "inference mode" if "inference" in quiet else "no_grad mode"

        with raises(RuntimeError, f"A view was created in {telling}", why=f"{view} was taken inside {quiet}"):
            WRITES[write](seen, other)

        same(base, world.constant(v), why="an error changes nothing")
        same((base._version, seen._version), (0, 0), why="an error changes nothing")
        same((seen.requires_grad, seen.grad_fn, base.grad_fn is history), (True, None, True), why="as it was before")

    (base * 3).sum().backward()
    same(x.grad, torch.full_like(x, 3), why="the graph is whole")


@claim(observed=True)
@given(
    v=values(shapes=SHAPES[1:9], layouts=("contiguous",)),
    view=st.sampled_from(list(VIEWS)),
    computed=st.booleans(),
    modes=st.tuples(ANY_QUIET_MODE, ANY_QUIET_MODE),
    through_view=st.booleans(),
)
def spec_a_view_taken_under_no_grad_loses_its_history_by_a_write(world, v, view, computed, modes, through_view):
    """When a tensor that requires grad was written with grad mode off or in inference mode, directly or
    through a view, is_leaf and grad_fn of its views that were taken in such a mode raise an error, though
    is_leaf was True before. Their values and those of the base are right."""
    x = world.leaf(v)
    base = x * 1 if computed else x
    taken, written = modes

    with QUIET[taken]():
        seen = VIEWS[view](base)
    before = seen.is_leaf
    with QUIET[written]():
        (seen if through_view and "expand" not in view else base).fill_(7)

    same(before, True, why="nothing was recorded")
    telling = "inference mode" if "inference" in taken else "no_grad mode"
    for look in ("is_leaf", "grad_fn"):
        with raises(RuntimeError, f"A view was created in {telling}", why=f"{view} was taken inside {taken}"):
            getattr(seen, look)
    same(seen, torch.full_like(seen.detach(), 7), why="it was written")
    (base * 3).sum().backward()
    same(x.grad, torch.full_like(x, 3), why="the graph of the base is whole")


@claim(
    cites=[
        "torch/views-are-inference-tensors-as-their-bases",
        "inference_mode/views-are-inference-tensors-as-their-bases",
    ],
)
@given(
    v=values(shapes=SHAPES[1:9], dtypes=ANY_DTYPE),
    views=some_of(LOOKS),
    made=st.sampled_from(["outside", "inside", "inside, requires grad"]),
    inside=st.booleans(),
)
def spec_a_view_is_an_inference_tensor_if_its_base_is(world, v, views, made, inside):
    """A view is an inference tensor if and only if the tensor that it is a view of is one, wherever it is
    taken; what detach() and .data give, too. It shows what its base shows."""
    with torch.inference_mode(made != "outside"):
        base = world.constant(v).requires_grad_("requires grad" in made)

    for view in views:
        with torch.inference_mode(inside):
            seen = LOOKS[view](base)

        same(
            (seen.is_inference(), base.is_inference()), (made != "outside",) * 2, why=f"{view} of a tensor made {made}"
        )
        same(seen, LOOKS[view](world.constant(v)), why="it shows what the base shows")
        same(seen.grad_fn, None, why="no operation was recorded")


@claim(
    observed=True,
    cites=["torch/views-are-inference-tensors-as-their-bases"],
    needs=["float64", "float16", "bfloat16", "complex64"],
)
@given(
    shape=st.sampled_from([(2,), (1,), (2, 2), (4,)]),
    dtypes=st.sampled_from(
        [
            ("float32", "int32"),
            ("int64", "float64"),
            ("float16", "bfloat16"),
            ("float32", "uint8"),
            ("complex64", "float32"),
            ("complex64", "int64"),
        ]
    ),
    made=st.booleans(),
    taken=st.booleans(),
)
def spec_a_view_in_another_dtype_is_what_the_mode_makes_it(world, shape, dtypes, made, taken):
    """A view of a tensor in another dtype, by view(dtype), is an inference tensor if and only if it is taken
    in inference mode, whatever its base is. It shares memory with the base all the same."""
    dtype, other = (getattr(torch, name) for name in dtypes)
    with torch.inference_mode(made):
        base = torch.ones(shape, dtype=dtype, device=world.device)

    with torch.inference_mode(taken):
        seen = base.view(other)

    same((seen.is_inference(), base.is_inference()), (taken, made), why=f"the view was taken inside: {taken}")
    same(seen.data_ptr(), base.data_ptr(), why="it is a view of the same memory")
    with torch.inference_mode(taken):
        seen.zero_()
    same(base, torch.zeros(shape, dtype=dtype, device=world.device), why="it is a view of the same memory")


@claim(cites=["torch/views-are-inference-tensors-as-their-bases"], until="2.5")
@given(v=values(dtypes=ANY_DTYPE), made=st.booleans(), taken=st.booleans())
def spec_a_view_in_its_own_dtype_is_an_inference_tensor_if_its_base_is(world, v, made, taken):
    """What x.view(x.dtype) gives is an inference tensor if and only if x is one."""
    with torch.inference_mode(made):
        x = world.constant(v)

    with torch.inference_mode(taken):
        seen = x.view(x.dtype)

    same((seen.is_inference(), seen.data_ptr()), (made, x.data_ptr()), why=f"x was made inside: {made}")


@claim(observed=True, cites=["torch/views-are-inference-tensors-as-their-bases"], since="2.6")
@given(v=values(dtypes=ANY_DTYPE), made=st.booleans(), taken=st.booleans())
def spec_a_view_in_its_own_dtype_is_what_the_mode_makes_it(world, v, made, taken):
    """What x.view(x.dtype) gives is an inference tensor if and only if it is taken in inference mode,
    whatever x is, though it shares memory with x."""
    with torch.inference_mode(made):
        x = world.constant(v)

    with torch.inference_mode(taken):
        seen = x.view(x.dtype)

    same((seen.is_inference(), seen.data_ptr()), (taken, x.data_ptr()), why=f"the view was taken inside: {taken}")


@claim(cites=["autograd_mechanics/changed-saved-tensor-raises", "torch/views-are-inference-tensors-as-their-bases"])
@given(
    v=values(shapes=SHAPES[1:9], layouts=WRITABLE),
    view=st.sampled_from([view for view in LOOKS if view not in ("x.data", "x.expand(2, *x.shape)")]),
    write=st.sampled_from(["view inside", "view outside", "base inside", "base outside"]),
    save_view=st.booleans(),
)
def spec_a_view_of_a_normal_tensor_taken_inside_counts_with_its_base(world, v, view, write, save_view):
    """A view of a normal tensor that is taken in inference mode shares memory and version with the tensor: when
    either of them is written, inside or outside, a backward for which the other was saved is refused."""
    base = world.constant(v)
    with torch.inference_mode():
        seen = LOOKS[view](base)
    saved = seen if save_view else base
    w = torch.ones_like(saved).requires_grad_()
    loss = (w * saved).sum()

    with torch.inference_mode("inside" in write):
        (seen if "view" in write else base).mul_(2)

    same(base._version, 1, why=f"{write} was written")
    same((seen._version, seen.is_inference()), (1, False), why="it is a normal view of a normal tensor")
    same(seen, LOOKS[view](base), why="they share memory")
    with raises(RuntimeError, "modified by an inplace operation", why="what was saved was written"):
        loss.backward()
    (w * saved).sum().backward()
    same(w.grad, saved, why="a new graph saves the new values")
