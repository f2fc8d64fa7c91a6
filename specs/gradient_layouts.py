"""Gradient layouts: in which order the numbers of a .grad lie in memory."""

import threading

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import claim, raises, same, silent, warns
from .kit.choices import some_of

# Tensors of ones of a shape with at least two dimensions; more says the dtype and the device.
LAYOUTS = {
    "rows": lambda shape, **more: torch.ones(shape, **more),
    "columns": lambda shape, **more: torch.ones(shape[::-1], **more).permute(*reversed(range(len(shape)))),
    "last dimensions exchanged": lambda shape, **more: torch.ones(exchanged(shape), **more).transpose(-1, -2),
    "first dimensions exchanged": lambda shape, **more: torch.ones(exchanged(shape, 0), **more).transpose(0, 1),
    "channels last": lambda shape, **more: torch.ones((shape[0], *shape[2:], shape[1]), **more).movedim(-1, 1),
    "behind the first row": lambda shape, **more: torch.ones((shape[0] + 1, *shape[1:]), **more)[1:],
    "every second element": lambda shape, **more: torch.ones((*shape[:-1], 2 * shape[-1]), **more)[..., ::2],
    "rows with a rest": lambda shape, **more: torch.ones((*shape[:-1], shape[-1] + 1), **more)[..., :-1],
    "one row for all": lambda shape, **more: torch.ones((1, *shape[1:]), **more).expand(shape),
    "one element for each row": lambda shape, **more: torch.ones((*shape[:-1], 1), **more).expand(shape),
    "one element": lambda shape, **more: torch.ones((), **more).expand(shape),
}
WRITABLE = [layout for layout in LAYOUTS if not layout.startswith("one")]
FULL = WRITABLE[:6]  # without gaps
ANY_LAYOUT = st.sampled_from(list(LAYOUTS))
ANY_SHAPE = st.sampled_from([(2, 3), (3, 2), (2, 2), (3, 2, 2), (2, 1, 3), (2, 3, 2, 2), (1, 2, 3, 2)])

# Operations with the derivative 1 whose own gradients lie in memory in one way or another.
OPERATIONS = {
    "x.sum()": lambda x: x.sum(),
    "(x * 1).sum()": lambda x: (x * 1).sum(),
    "(x * ones in rows).sum()": lambda x: (x * torch.ones(x.shape, dtype=x.dtype, device=x.device)).sum(),
    "x.clone().sum(0).sum()": lambda x: x.clone().sum(0).sum(),
    "(x.transpose(0, 1) * ones).sum()": lambda x: (x.transpose(0, 1) * torch.ones_like(x.transpose(0, 1))).sum(),
    "x.contiguous().view(-1).mul(1).sum()": lambda x: x.contiguous().view(-1).mul(1).sum(),
    "x.unbind(-1)": lambda x: sum(part.mul(1).sum() for part in x.unbind(-1)),
}

# Ways to clear the .grad of a Parameter: in place, or to None.
ZEROINGS = {
    "p.grad.zero_()": lambda p: p.grad.zero_(),
    "module.zero_grad(set_to_none=False)": lambda p: module_of(p).zero_grad(set_to_none=False),
}
RESETS = {
    "p.grad = None": lambda p: setattr(p, "grad", None),
    "module.zero_grad(set_to_none=True)": lambda p: module_of(p).zero_grad(set_to_none=True),
}


def exchanged(shape, first=-2):
    """The shape with two dimensions that lie side by side in each other's place."""
    shape = list(shape)
    shape[first], shape[first + 1] = shape[first + 1], shape[first]
    return shape


def module_of(p):
    """A module with one parameter."""
    return torch.nn.ParameterList([p])


def strides(x):
    """The strides of x along the dimensions where they mean anything."""
    return [stride for stride, size in zip(x.stride(), x.shape, strict=True) if size > 1]


def strides_of_the_first_grad(x):
    """Those of x if its memory has neither gaps nor overlaps, and otherwise those of rows."""
    full = 1
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size > 1 and stride != full:
            return strides(torch.ones(x.shape))
        full *= size
    return strides(x)


class WithGradient(torch.autograd.Function):
    """The identity. Its backward makes a gradient of ones in a layout, and can keep a reference to it."""

    @staticmethod
    def forward(ctx, x, layout, kept):
        """Let x pass."""
        ctx.made = LAYOUTS[layout], x.shape, {"dtype": x.dtype, "device": x.device}, kept
        return x.clone()

    @staticmethod
    def backward(ctx, cotangent):
        """Ones in the layout."""
        make, shape, more, kept = ctx.made
        gradient = make(shape, **more)
        if kept is not None:
            kept.append(gradient)
        return gradient, None, None


@claim(
    cites=["torch_autograd/first-grad-is-laid-out-like-the-leaf"],
    formerly=["accumulation/grad_lies_in_memory_like_the_leaf"],
)
@given(
    shape=ANY_SHAPE,
    leaves=some_of(LAYOUTS, at_once=4),
    cotangent=ANY_LAYOUT,
    create_graph=st.booleans(),
)
def spec_the_first_grad_lies_in_memory_like_the_leaf(world, shape, leaves, cotangent, create_graph):
    """The .grad that the first backward makes has the strides of the leaf if the leaf fills its memory
    without gaps or overlaps, and those of rows otherwise, whatever the strides of the gradient that comes."""
    xs = [LAYOUTS[leaf](shape, device=world.device).requires_grad_() for leaf in leaves]

    sum(xs).backward(LAYOUTS[cotangent](shape, device=world.device), create_graph=create_graph)

    for x, leaf in zip(xs, leaves, strict=True):
        same(strides(x.grad), strides_of_the_first_grad(x), why=f"the leaf lies in {leaf}, with {x.stride()}")
        same(x.grad.detach(), torch.ones(shape, device=world.device), why="where a number lies doesn't change it")


@claim(cites=["torch_autograd/first-grad-is-laid-out-like-the-leaf"], needs=["bfloat16"])
@given(shape=ANY_SHAPE, leaf=ANY_LAYOUT, operations=some_of(OPERATIONS, at_once=3), float32=st.booleans())
def spec_the_layout_of_the_first_grad_does_not_depend_on_the_operations(world, shape, leaf, operations, float32):
    """Through whatever operations its gradient comes, the first .grad of a leaf is laid out by the leaf alone."""
    dtype = torch.float32 if float32 else torch.bfloat16
    for operation in operations:
        x = LAYOUTS[leaf](shape, dtype=dtype, device=world.device).requires_grad_()

        OPERATIONS[operation](x).backward()

        same(strides(x.grad), strides_of_the_first_grad(x), why=f"the leaf lies in {leaf}, with {x.stride()}")
        same(x.grad, torch.ones_like(x).detach(), why=f"the derivative of {operation} is 1")


@claim(
    cites=["torch_autograd/grad-accumulates-in-place", "torch_autograd/a-layout-that-the-user-chose-is-kept"],
)
@given(
    shape=ANY_SHAPE,
    leaf=ANY_LAYOUT,
    start=st.sampled_from([None, *WRITABLE]),
    passed=st.lists(ANY_LAYOUT, min_size=1, max_size=3),
)
def spec_later_backwards_keep_the_strides_of_grad(world, shape, leaf, start, passed):
    """Backward adds to a .grad that is there without changing its strides, be they those that the first
    backward gave it or those of a tensor that the user put there."""
    x = LAYOUTS[leaf](shape, device=world.device).requires_grad_()
    if start is None:
        x.sum().backward()
    else:
        x.grad = LAYOUTS[start](shape, device=world.device)
    before = x.grad.stride()

    for number, cotangent in enumerate(passed, start=2):
        x.backward(LAYOUTS[cotangent](shape, device=world.device))
        same(x.grad.stride(), before, why=f"x lies in {leaf}, .grad in {start}, and a gradient in {cotangent} came")
        same(x.grad, torch.full(shape, float(number), device=world.device), why="ones were added")


@claim(cites=["torch_autograd/create-graph-tries-to-keep-the-strides"])
@given(
    shape=ANY_SHAPE,
    leaf=ANY_LAYOUT,
    start=st.sampled_from([None, *FULL]),
    passed=st.lists(ANY_LAYOUT, min_size=1, max_size=2),
)
def spec_with_create_graph_too_grad_keeps_strides_without_gaps(world, shape, leaf, start, passed):
    """With create_graph=True the new tensor that backward puts into .grad has the strides of the old one,
    if that fills its memory without gaps."""
    x = LAYOUTS[leaf](shape, device=world.device).requires_grad_()
    if start is None:
        x.sum().backward()
    else:
        x.grad = LAYOUTS[start](shape, device=world.device)
    before = strides(x.grad)

    for cotangent in passed:
        x.backward(LAYOUTS[cotangent](shape, device=world.device), create_graph=True)
        same(strides(x.grad), before, why=f"x lies in {leaf}, .grad in {start}, and a gradient in {cotangent} came")


@claim(cites=["torch_autograd/create-graph-tries-to-keep-the-strides"])
@given(
    shape=ANY_SHAPE,
    leaf=ANY_LAYOUT,
    gaps=st.sampled_from(["every second element", "rows with a rest"]),
    cotangent=st.sampled_from(["rows", "columns", "one element", "every second element"]),
)
def spec_with_create_graph_the_gaps_of_a_grad_are_closed(world, shape, leaf, gaps, cotangent):
    """With create_graph=True a .grad with gaps in its memory is replaced by one without: a layout that the
    user chose is lost."""
    x = LAYOUTS[leaf](shape, device=world.device).requires_grad_()
    x.grad = LAYOUTS[gaps](shape, device=world.device)

    x.backward(LAYOUTS[cotangent](shape, device=world.device), create_graph=True)

    same(strides(x.grad), strides(torch.ones(shape)), why=f"its strides were those of {gaps}")


@claim(
    cites=[
        "torch_autograd/a-layout-that-the-user-chose-is-kept",
        "torch_autograd/zero-grad-leaves-layouts-alone",
        "torch_autograd/a-grad-set-to-none-is-laid-out-anew",
    ]
)
@given(
    shape=ANY_SHAPE,
    leaf=ANY_LAYOUT,
    start=st.sampled_from(WRITABLE),
    clearings=st.lists(st.sampled_from([*ZEROINGS, *RESETS]), min_size=1, max_size=3),
)
def spec_a_grad_that_is_zeroed_keeps_its_layout_and_one_set_to_none_does_not(world, shape, leaf, start, clearings):
    """A .grad that is zeroed in place, by zero_grad(set_to_none=False) too, keeps its layout; after it was
    set to None the next backward lays it out like the leaf again."""
    p = torch.nn.Parameter(LAYOUTS[leaf](shape, device=world.device))
    p.grad = LAYOUTS[start](shape, device=world.device)
    expected = strides(p.grad)

    for clearing in clearings:
        {**ZEROINGS, **RESETS}[clearing](p)
        if clearing in RESETS:
            expected = strides_of_the_first_grad(p)
        p.sum().backward()
        same(strides(p.grad), expected, why=f"p lies in {leaf}, .grad was put there in {start}: {clearings}")


@claim(cites=["torch_autograd/zero-grad-leaves-layouts-alone"], since="2.0")
@given(shape=ANY_SHAPE, start=st.sampled_from(WRITABLE))
def spec_zero_grad_loses_a_layout_that_the_user_chose(world, shape, start):
    """zero_grad() of a module loses the layout that the user gave a .grad: the next one lies like
    the parameter."""
    p = torch.nn.Parameter(torch.ones(shape, device=world.device))
    p.grad = LAYOUTS[start](shape, device=world.device)

    module_of(p).zero_grad()
    p.sum().backward()

    same(strides(p.grad), strides(p), why=f"it makes .grad None, whose layout was that of {start}")


@claim(cites=["torch_autograd/zero-grad-leaves-layouts-alone"], until="2.0")
@given(shape=ANY_SHAPE, start=st.sampled_from(WRITABLE))
def spec_zero_grad_keeps_a_layout_that_the_user_chose(world, shape, start):
    """zero_grad() of a module keeps the layout that the user gave a .grad."""
    p = torch.nn.Parameter(torch.ones(shape, device=world.device))
    p.grad = LAYOUTS[start](shape, device=world.device)
    before = p.grad.stride()

    module_of(p).zero_grad()
    p.sum().backward()

    same(p.grad.stride(), before, why=f"it makes .grad zero, whose layout was that of {start}")


@claim(observed=True)
@given(
    shape=st.sampled_from([(2, 3), (3, 2), (2, 3, 2)]),
    leaf=st.sampled_from(FULL[:3]),
    start=st.sampled_from(FULL[:3]),
    create_graph=st.booleans(),
)
def spec_a_grad_that_does_not_lie_like_its_leaf_gives_a_warning(world, shape, leaf, start, create_graph):
    """When backward has added to a .grad whose strides are not those of the leaf, it warns that they don't
    obey the gradient layout contract. When they are, it doesn't."""
    x = LAYOUTS[leaf](shape, device=world.device).requires_grad_()
    x.grad = LAYOUTS[start](shape, device=world.device)
    differs = x.grad.stride() != x.stride()

    torch.set_warn_always(True)  # otherwise once in a process
    try:
        if differs:
            with warns(UserWarning, "do not obey the gradient layout contract", why=f"{start} is not {leaf}"):
                x.sum().backward(create_graph=create_graph)
        else:
            with silent(why=f"{start} is {leaf}"):
                x.sum().backward()
    finally:
        torch.set_warn_always(False)

    same(x.grad.detach(), torch.full(shape, 2.0, device=world.device), why="it is a warning only")


@claim(observed=True)
@given(shape=ANY_SHAPE, leaf=ANY_LAYOUT, gradient=ANY_LAYOUT, create_graph=st.booleans())
def spec_autograd_grad_gives_gradients_in_the_layout_in_which_they_come(world, shape, leaf, gradient, create_graph):
    """torch.autograd.grad doesn't lay gradients out anew: what it gives has the strides that the gradient came with,
    whatever those of the leaf."""
    x = LAYOUTS[leaf](shape, device=world.device).requires_grad_()
    y = WithGradient.apply(x, gradient, None)

    (given,) = torch.autograd.grad(y.sum(), [x], create_graph=create_graph)

    as_it_came = strides(LAYOUTS[gradient](shape))
    same(strides(given), as_it_came, why=f"x lies in {leaf}, and a gradient in {gradient} came")
    same(given.detach(), torch.ones(shape, device=world.device), why="where a number lies doesn't change it")


@claim(
    cites=[
        "torch_autograd/without-the-layout-policy-gradients-become-grad-as-they-are",
        "torch_autograd/the-layout-policy-is-not-for-new-copies",
    ],
    since="2.13",
)
@given(
    shape=ANY_SHAPE,
    leaf=ANY_LAYOUT,
    start=st.sampled_from([None, None, "rows", "columns", "every second element"]),
    gradient=ANY_LAYOUT,
    enforced=st.booleans(),
    held=st.booleans(),
)
def spec_the_layout_policy_tells_whether_a_gradient_becomes_grad_as_it_is(
    world, shape, leaf, start, gradient, enforced, held
):
    """Under enforce_grad_layout_policy(False) the first .grad is the gradient with the strides that it came with,
    unless somebody else holds that: then, and under the policy, it is laid out like the leaf. A .grad that
    is there keeps its strides either way."""
    x = LAYOUTS[leaf](shape, device=world.device).requires_grad_()
    x.grad = None if start is None else LAYOUTS[start](shape, device=world.device)
    expected = None if start is None else strides(x.grad)
    kept = [] if held else None
    y = WithGradient.apply(x, gradient, kept)

    with torch.autograd.enforce_grad_layout_policy(enforced):
        y.sum().backward()

    if start is None:
        taken = not enforced and not held
        as_it_is = strides(LAYOUTS[gradient](shape))
        expected = as_it_is if taken else strides_of_the_first_grad(x)
    same(strides(x.grad), expected, why=f"x lies in {leaf}, .grad in {start}, and a gradient in {gradient} came")
    same(x.grad, torch.full(shape, 1.0 if start is None else 2.0, device=world.device), why="the numbers are the same")


@claim(
    cites=["torch_autograd/the-layout-policy-is-a-block-or-a-call", "torch_autograd/the-layout-policy-is-thread-local"],
    since="2.13",
)
@given(
    shape=st.sampled_from([(2, 3), (3, 2, 2)]),
    flags=st.lists(st.booleans(), min_size=1, max_size=3),
    way=st.sampled_from(["block", "failing block", "decorator", "call", "thread"]),
)
def spec_the_layout_policy_lasts_for_a_block_a_function_or_from_a_call_on(world, shape, flags, way):
    """The layout policy that enforce_grad_layout_policy sets is that of the block, also inside another one,
    or of the function that it decorates, or stays after a mere call. Behind a block, also one that failed,
    it is what it was; and another thread has its own."""

    def enforced():
        x = torch.ones(shape, device=world.device).requires_grad_()
        WithGradient.apply(x, "columns", None).sum().backward()
        return x.grad.stride() == x.stride()

    def inside(flags):
        if not flags:
            return []
        policy = torch.autograd.enforce_grad_layout_policy(flags[0])
        if way == "decorator":
            return policy(lambda: [enforced(), *inside(flags[1:]), enforced()])()
        with policy:
            seen = [enforced(), *inside(flags[1:]), enforced()]
            if way == "failing block" and len(flags) == 1:
                raise ValueError(seen)
        return seen

    same(enforced(), True, why="the policy is on by default")
    if way == "call":
        try:
            for flag in flags:
                torch.autograd.enforce_grad_layout_policy(flag)
                same(enforced(), flag, why=f"it was set to {flag}")
        finally:
            torch.autograd.enforce_grad_layout_policy(True)
    elif way == "thread":
        seen = []
        with torch.autograd.enforce_grad_layout_policy(False):
            thread = threading.Thread(target=lambda: seen.append(enforced()))
            thread.start()
            thread.join()
        same(seen, [True], why="it was turned off in another thread")
    elif way == "failing block":
        with raises(ValueError, why="that is what the block does"):
            inside(flags)
    else:
        same(inside(flags), flags + flags[::-1], why=f"the policies were {flags}, one inside the other")
    same(enforced(), True, why="the policy is on again")


@claim(cites=["torch_autograd/the-layout-policy-spares-the-warning"], since="2.13")
@given(
    shape=st.sampled_from([(2, 3), (3, 2), (2, 3, 2)]), leaf=st.sampled_from(FULL[:3]), start=st.sampled_from(WRITABLE)
)
def spec_without_the_layout_policy_no_layout_gives_a_warning(world, shape, leaf, start):
    """Under enforce_grad_layout_policy(False) backward gives no warning about strides of .grad that are not
    those of the leaf."""
    x = LAYOUTS[leaf](shape, device=world.device).requires_grad_()
    x.grad = LAYOUTS[start](shape, device=world.device)

    torch.set_warn_always(True)  # otherwise once in a process
    try:
        with torch.autograd.enforce_grad_layout_policy(False), silent(why=f"{leaf} and {start} are no matter"):
            x.sum().backward()
    finally:
        torch.set_warn_always(False)

    same(x.grad, torch.full(shape, 2.0, device=world.device), why="1 was added to 1")


@claim(
    cites=["torch_autograd/without-the-layout-policy-gradients-become-grad-as-they-are"], observed=True, since="2.13"
)
@given(shape=ANY_SHAPE, passes=st.integers(1, 2), enforced=st.booleans())
def spec_without_the_layout_policy_a_second_backward_of_a_sum_fails(world, shape, passes, enforced):
    """Under enforce_grad_layout_policy(False) the .grad that backward of a sum leaves is a single number in memory,
    to which no later backward can add, under whatever policy: it raises an error and leaves .grad as it was."""
    x = torch.ones(shape, device=world.device).requires_grad_()
    with torch.autograd.enforce_grad_layout_policy(False):
        x.sum().backward()

    for _ in range(passes):
        with torch.autograd.enforce_grad_layout_policy(enforced):
            with raises(RuntimeError, "single memory location", why=".grad is a number that was expanded"):
                x.sum().backward()
        same(x.grad, torch.ones(shape, device=world.device), why="nothing was added")
    x.grad = None
    x.sum().backward()
    x.sum().backward()
    same(x.grad, torch.full(shape, 2.0, device=world.device), why="a .grad that is made anew has its own memory")
