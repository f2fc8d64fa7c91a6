"""Views: tensors that show elements of another tensor, lie in its memory and pass gradients on to it."""

import itertools
import math
import weakref

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import SMALL_DTYPES, WRITABLE, claim, raises, same, values
from .kit.choices import some_of
from .kit.views import shown, taken, view_chains

FLOATS = ("float64", "float32")
COMPLEX = ("complex128", "complex64")


def in_memory(x):
    """For each element of x, row by row, where it lies in the storage."""
    indices = itertools.product(*map(range, x.shape))
    return [x.storage_offset() + sum(map(math.prod, zip(index, x.stride()))) for index in indices]


def weights(y):
    """A weight for each element of y, few of them equal."""
    return (torch.arange(y.numel(), device=y.device) % 7 - 2).reshape(y.shape).to(y.dtype)


def like(x, numbers):
    """These numbers, row by row, in a tensor like x."""
    return torch.tensor(numbers, dtype=x.dtype, device=x.device).reshape(x.shape)


def added_up(parts, positions, x):
    """A tensor like x: at each position the sum of those of the parts that belong there."""
    sums = [0] * x.numel()
    for part, at in zip(parts.detach().reshape(-1).tolist(), positions, strict=True):
        sums[at] += part
    return like(x, sums)


@claim(cites=["tensor_views/views-share-data", "tensor_views/list-of-view-operations"])
@given(case=view_chains(dtypes=(*SMALL_DTYPES, "complex64")), recorded=st.booleans())
def spec_a_view_has_the_elements_that_it_shows(world, case, recorded):
    """A view operation gives, in a shape of its own, elements of its operand, in its dtype. It requires grad if the
    operand does, has a grad_fn then and is no leaf."""
    v, chains = case
    x = world.leaf(v) if recorded else world.constant(v)

    for chain in chains:
        y = taken(x, chain)

        shape, positions = shown(x, chain)
        same(y, x.detach().reshape(-1)[positions].reshape(shape), why=f"of x it is {chain}")
        same(y.requires_grad, recorded, why="x decides")
        same([y.is_leaf, y.grad_fn is None], [not recorded] * 2, why="an operation gave it")


@claim(cites=["tensor_views/making-a-view-moves-no-data", "tensor_views/views-may-be-non-contiguous"])
@given(case=view_chains())
def spec_each_element_of_a_view_lies_where_it_lies_in_the_base(world, case):
    """No data moves when a view is made: by its strides and storage offset each element lies where the same element
    of the base lies, and it is contiguous only if its elements happen to follow each other there."""
    v, chains = case
    x = world.leaf(v)

    for chain in chains:
        y = taken(x, chain)

        _, positions = shown(x, chain)
        at = in_memory(x)
        same(in_memory(y), [at[position] for position in positions], why=f"of x it is {chain}")
        if positions:
            begins = y.data_ptr() - x.data_ptr()
            same(begins, x.element_size() * (in_memory(y)[0] - at[0]), why="both count from the same address")
            in_order = [in_memory(y)[0] + i for i in range(y.numel())]
            same(y.is_contiguous(), in_memory(y) == in_order, why=f"its elements lie at {in_memory(y)}")


@claim(
    cites=["tensor_views/edits-of-views-show-in-the-base", "torch/squeeze-shares-storage"],
    needs=["in-place", "views"],
)
@given(case=view_chains(layouts=WRITABLE, dtypes=(*SMALL_DTYPES, "complex64")), recorded=st.booleans())
def spec_a_write_to_the_base_shows_in_its_views(world, case, recorded):
    """A write to a tensor shows in all views of it, those of views too, whether they require grad or not."""
    v, chains = case
    x = world.leaf(v) if recorded else world.constant(v)
    views = [taken(x, chain) for chain in chains]

    with torch.no_grad():
        x.copy_(weights(x) + 10)

    for view, chain in zip(views, chains):
        shape, positions = shown(x, chain)
        same(view, (weights(x) + 10).reshape(-1)[positions].reshape(shape), why=f"{chain} shows x")


@claim(cites=["tensor_views/edits-of-views-show-in-the-base"], needs=["in-place", "views"])
@given(case=view_chains(writable=True, dtypes=(*SMALL_DTYPES, "complex64")), recorded=st.booleans())
def spec_a_write_to_a_view_shows_in_the_base_at_what_the_view_shows(world, case, recorded):
    """A write to a view shows in the base and in all other views of it, at the elements that the view shows; no
    other element changes."""
    v, chains = case
    x = world.leaf(v) if recorded else world.constant(v)
    views = [taken(x, chain) for chain in chains]
    now = x.tolist() if x.dim() == 0 else x.reshape(-1).tolist()
    now = [now] if x.dim() == 0 else now

    for number, view in enumerate(views):
        with torch.no_grad():
            view.fill_(10 + number)
        for position in shown(x, chains[number])[1]:
            now[position] = 10 + number
        expected = torch.tensor(now, dtype=x.dtype, device=x.device)
        same(x, expected.reshape(x.shape), why=f"{chains[number]} was filled with {10 + number}")
        for other, chain in zip(views, chains):
            shape, positions = shown(x, chain)
            same(other, expected[positions].reshape(shape), why=f"{chain} shows the same memory")


@claim(cites=["tensor_views/views-share-data"])
@given(case=view_chains(), kind=st.sampled_from(["leaf", "result", "constant"]))
def spec_the_base_of_a_view_is_the_tensor_that_is_no_view_itself(world, case, kind):
    """_is_view() tells views from other tensors, and _base is the tensor that the view shows: of a view of a view
    the first one, which is no view and has no base."""
    v, chains = case
    x = world.constant(v).clone()
    x = x.requires_grad_() * 1 if kind == "result" else x.requires_grad_(kind == "leaf")
    same([x._is_view(), x._base], [False, None], why="nothing else lies in its memory")

    for chain in chains:
        y = x
        for name in chain:
            y = taken(y, [name])
            same([y._is_view(), y._base is x], [True, True], why=f"it is taken of x: {chain}")
    same([x._is_view(), x._base], [False, None], why="x is what it was")


@claim(observed=True)
@given(case=view_chains(), result=st.booleans())
def spec_a_view_keeps_its_base_alive(world, case, result):
    """A view keeps the tensor alive that it shows, whatever was between them; and a tensor doesn't keep its views."""
    v, chains = case
    x = world.constant(v).clone().requires_grad_()
    x = x * 1 if result else x
    kept, views = weakref.ref(x), [taken(x, chain) for chain in chains]
    expected = x.detach().clone()
    gone = weakref.ref(views.pop())

    del x

    same([view._base is kept() for view in views], [True] * len(views), why="the views are alive")
    same(gone(), None, why="nobody needs this view any more")
    for view, chain in zip(views, chains):
        shape, positions = shown(expected, chain)
        same(view, expected.reshape(-1)[positions].reshape(shape), why="the memory is as it was")


@claim(
    cites=["tensor_views/views-share-data", "torch_tensor/unfold-gives-all-slices", "torch/as-strided-makes-a-view"],
)
@given(
    case=view_chains(count=3, dtypes=(*SMALL_DTYPES, "complex64")),
    result=st.booleans(),
    flow=st.sampled_from(["dense", "strided", "expanded"]),
)
def spec_the_gradient_of_a_view_goes_to_the_elements_that_it_shows(world, case, result, flow):
    """The gradient by a tensor is, for each element, the sum of the gradients by the elements of its views that show
    it, however these gradients lie in memory; zero if none shows it."""
    v, chains = case
    x = world.leaf(v)
    y = x * 1 if result else x

    views = [taken(y, chain) for chain in chains]
    gradients = [weights(view) for view in views]
    if flow == "strided":
        gradients = [torch.stack([gradient, gradient * 9], -1)[..., 0] for gradient in gradients]
    elif flow == "expanded":
        gradients = [torch.ones_like(gradient.sum()).expand(gradient.shape) for gradient in gradients]
    torch.autograd.backward(views, gradients)

    expected = torch.zeros_like(x).detach()
    for gradient, chain in zip(gradients, chains):
        expected += added_up(gradient, shown(x, chain)[1], x)
    same(x.grad, expected, why=f"x was shown by {chains}")


@claim(cites=["torch_autograd/grad-returns-the-gradients", "torch_tensor/retain-grad-fills-grad"])
@given(case=view_chains(count=2), retained=st.booleans())
def spec_the_gradient_by_a_view_is_that_of_what_was_computed_from_it(world, case, retained):
    """The gradient by a view counts what was computed from that view, not what was computed from its base or from
    other views of the same elements."""
    v, (chain, other) = case
    x = world.leaf(v)
    y = x * 1
    view, again = taken(y, chain), taken(y, chain)
    loss = (view * weights(view)).sum() + (again * 5).sum() + (y * 7).sum() + (taken(y, other) * 9).sum()

    if retained:
        view.retain_grad()
        loss.backward()
        by_view = view.grad
    else:
        (by_view,) = torch.autograd.grad(loss, view, retain_graph=True)
        (x.grad,) = torch.autograd.grad(loss, x)

    same(by_view, weights(view).detach(), why="these are the factors of the view")
    positions, others = shown(x, chain)[1], shown(x, other)[1]
    expected = 7 + added_up(weights(view) + 5, positions, x) + added_up(torch.full((len(others),), 9.0), others, x)
    same(x.grad, expected, why="all of these were computed from x")


@claim(
    cites=["torch_autograd/create-graph-allows-higher-derivatives", "tensor_views/views-share-data"],
)
@given(case=view_chains(count=2))
def spec_gradients_through_views_can_be_differentiated(world, case):
    """A gradient that went through views can be differentiated again, by the tensor and by what flowed in."""
    v, (first, second) = case
    x = world.leaf(v)
    y, z = taken(x, first), taken(x * x, second)
    by_y = weights(y).requires_grad_()

    (gradient,) = torch.autograd.grad([y, z], x, [by_y, weights(z)], create_graph=True)
    squares = added_up(weights(z), shown(x, second)[1], x)
    expected = added_up(by_y, shown(x, first)[1], x) + 2 * squares * x.detach()
    same(gradient.detach(), expected, why=f"y is {first} of x and z is {second} of x * x")

    gradient.backward(weights(x))
    same(x.grad, 2 * squares * weights(x), why="only z has a curvature")
    shape, positions = shown(x, first)
    if positions:
        by_y_grad = weights(x).reshape(-1)[positions].reshape(shape)
        same(by_y.grad, by_y_grad, why="the gradient is linear in what flowed in")


# Ways to let one element of memory stand for many.
EXPANSIONS = {
    "x.expand(4, 2, 3)": (lambda x: x.expand(4, 2, 3), (4, 2, 3)),
    "x[:, None].expand(-1, 3, -1)": (lambda x: x[:, None].expand(-1, 3, -1), (2, 3, 3)),
    "x.expand(4, -1, -1)": (lambda x: x.expand(4, -1, -1), (4, 2, 3)),
    "x.unsqueeze(1).expand(-1, 5, 3)": (lambda x: x.unsqueeze(1).expand(-1, 5, 3), (2, 5, 3)),
    "x.expand_as(torch.empty(2, 2, 3))": (lambda x: x.expand_as(torch.empty(2, 2, 3)), (2, 2, 3)),
    "x.broadcast_to((3, 2, 3))": (lambda x: x.broadcast_to((3, 2, 3)), (3, 2, 3)),
    "torch.broadcast_tensors(x, x[None, None])[0]": (
        lambda x: torch.broadcast_tensors(x, x[None, None])[0],
        (1, 1, 2, 3),
    ),
    "x[:, :1].expand(2, 4)": (lambda x: x[:, :1].expand(2, 4), (2, 4)),
    "x[0, 0].expand(3)": (lambda x: x[0, 0].expand(3), (3,)),
    "x[0, 0].expand(0)": (lambda x: x[0, 0].expand(0), (0,)),
    "torch.meshgrid(x[0], x[1], indexing='ij')[1]": (lambda x: torch.meshgrid(x[0], x[1], indexing="ij")[1], (3, 3)),
}


@claim(
    cites=["torch_tensor/expand-allocates-no-memory", "torch_tensor/expand-takes-singleton-dimensions"], needs=["views"]
)
@given(v=values(shapes=((2, 3),), dtypes=SMALL_DTYPES, layouts=WRITABLE), ways=some_of(EXPANSIONS))
def spec_an_expanded_tensor_needs_no_memory_and_its_gradients_are_summed(world, v, ways):
    """An expanded tensor is a view in which one element stands for many, by a stride of 0. The gradient of the element
    is the sum of theirs."""
    x = world.leaf(v)
    at = dict(zip(in_memory(x), range(6)))

    for way in ways:
        operation, shape = EXPANSIONS[way]
        y = operation(x)
        same(list(y.shape), list(shape), why=f"it is {way}")
        same(y._is_view(), True, why="no memory is allocated")
        positions = [at[place] for place in in_memory(y)]  # all of them lie in the memory of x
        same(y.reshape(-1), x.detach().reshape(-1)[positions], why=f"it is {way}")
        x.grad = None
        (y * weights(y)).sum().backward()
        same(x.grad, added_up(weights(y), positions, x), why=f"it is {way}")


# Operations that give several views, with the dimension along which they cut, and the sizes of the parts.
PARTS = {
    "x.split(1)": (lambda x: x.split(1), 0, lambda n: [1] * n),
    "x.split(2, -1)": (lambda x: x.split(2, -1), -1, lambda n: [2] * (n // 2) + [1] * (n % 2)),
    "x.split([1, 0, x.size(0) - 1])": (lambda x: x.split([1, 0, x.size(0) - 1]), 0, lambda n: [1, 0, n - 1]),
    "torch.split_with_sizes(x, [x.size(-1) - 1, 1], -1)": (
        lambda x: torch.split_with_sizes(x, [x.size(-1) - 1, 1], -1),
        -1,
        lambda n: [n - 1, 1],
    ),
    "x.chunk(2)": (lambda x: x.chunk(2), 0, lambda n: [n - n // 2, n // 2] if n > 1 else [1]),
    "x.chunk(3, -1)": (
        lambda x: x.chunk(3, -1),
        -1,
        lambda n: [-(-n // 3)] * (n // -(-n // 3)) + [n % -(-n // 3)] * (n % -(-n // 3) > 0),
    ),
    "x.tensor_split(3)": (lambda x: x.tensor_split(3), 0, lambda n: [(n + 2 - i) // 3 for i in range(3)]),
    "x.tensor_split([1, 1], -1)": (lambda x: x.tensor_split([1, 1], -1), -1, lambda n: [1, 0, n - 1]),
    "x.tensor_split(torch.tensor([1]))": (lambda x: x.tensor_split(torch.tensor([1])), 0, lambda n: [1, n - 1]),
    "x.hsplit([1])": (lambda x: x.hsplit([1]), 1, lambda n: [1, n - 1]),
    "x.vsplit(1)": (lambda x: x.vsplit(1), 0, lambda n: [n]),
    "x.vsplit([1, 2])": (lambda x: x.vsplit([1, 2]), 0, lambda n: [1, min(n - 1, 1), max(n - 2, 0)]),
    "x.unsqueeze(-1).dsplit([1])": (lambda x: x.unsqueeze(-1).dsplit([1]), 2, lambda n: [1, n - 1]),
}
UNBOUND = {
    "x.unbind()": (lambda x: x.unbind(), 0),
    "x.unbind(-1)": (lambda x: x.unbind(-1), -1),
    "torch.unbind(x, 1)": (lambda x: torch.unbind(x, 1), 1),
    "list(x)": (lambda x: list(x), 0),
}
RECTANGLES = ((2, 3), (3, 2), (1, 2), (2, 1), (2, 2), (1, 4))


@claim(
    cites=[
        "torch/split-gives-views",
        "torch/chunk-gives-views",
        "torch/tensor-split-gives-views",
        "torch/unbind-removes",
    ],
    needs=["in-place", "views"],
)
@given(
    v=values(shapes=RECTANGLES), way=st.sampled_from([*PARTS, *UNBOUND]), subset=st.integers(0, 15), again=st.booleans()
)
def spec_each_of_several_views_passes_its_own_gradient_on(world, v, way, subset, again):
    """Of an operation that cuts a tensor up, each result is a view of its own part. The gradient of those that are
    used goes to these parts, and zero to the others, in whatever order they are used."""
    x = world.leaf(v)
    cut, dim, sizes = PARTS.get(way) or (*UNBOUND[way], lambda n: [1] * n)
    three = x.unsqueeze(-1) if dim == 2 else x
    parts = cut(x)

    same(len(parts), len(sizes(three.size(dim))), why=f"{way} cuts dimension {dim} of {list(three.shape)}")
    expected, start = torch.zeros_like(three).detach(), 0
    for number, (part, size) in enumerate(zip(parts, sizes(three.size(dim)))):
        slot = expected.narrow(dim, start, size)
        shows = three.detach().narrow(dim, start, size)
        same(part, shows.squeeze(dim) if way in UNBOUND else shows, why=f"part {number} begins at {start}")
        same(part._is_view(), True, why="it is a view")
        slot.fill_((number + 1) * (subset >> number & 1) * (1 + again))
        start += size
    used = [number for number in range(len(parts)) if subset >> number & 1]

    for _ in range(1 + again):
        for number in reversed(used):
            (parts[number] * (number + 1)).sum().backward(retain_graph=True)

    same(x.grad, expected.reshape(x.shape) if used else None, why=f"of {way} the parts {used} were used")


@claim(observed=True)
@given(
    v=values(shapes=RECTANGLES[:2]),
    way=st.sampled_from(["x.unbind()", "x.split(1)", "x.chunk(2)"]),
    used=st.integers(0, 1),
)
def spec_a_hook_on_one_of_several_views_is_called_without_a_gradient(world, v, way, used):
    """If a backward reaches only others of the views that unbind, split or chunk gave, a hook on one of them is called
    all the same, with None in place of a gradient."""
    x = world.leaf(v)
    parts = (PARTS.get(way) or UNBOUND[way])[0](x)
    seen = []
    parts[1 - used].register_hook(lambda gradient: seen.append(gradient))

    parts[used].sum().backward()

    same(seen, [None], why=f"part {used} was used")


@claim(observed=True)
@given(
    v=values(shapes=((2, 3), (3,), (2, 2), (1, 2))),
    views=st.lists(st.sampled_from(["x[0]", "x[1:]", "x[...]"]), min_size=1, max_size=3),
)
def spec_a_view_taken_before_its_base_required_grad_passes_nothing_on(world, v, views):
    """If a tensor is made to require grad after views of it were taken, the views say that they require grad as well,
    but they are leaves to which no gradient is added, and none goes through them to the tensor."""
    x = world.constant(v).clone()
    early = [taken(x, [view]) for view in views]

    x.requires_grad_()
    late = taken(x, [views[0]])
    for view in early:
        same([view.requires_grad, view.is_leaf, view.grad_fn], [True, True, None], why="x requires grad now")
        (view * 2).sum().backward()
        same([view.grad, x.grad], [None, None], why="it was taken when there was nothing to record")

    late.backward(weights(late))
    same(x.grad, added_up(weights(late), shown(x, views[:1])[1], x), why="this one was recorded")


@claim(cites=["torch_tensor/requires-grad-in-place-begins-recording"])
@given(
    v=values(shapes=((2, 3), (3,), (2, 2), (1, 2))), view=st.sampled_from(["x[0]", "x[:1]", "x[...]", "x.unsqueeze(0)"])
)
def spec_a_view_of_a_constant_can_be_made_a_leaf_of_its_own(world, v, view):
    """A view of a tensor that doesn't require grad can be made to require grad: it is a leaf that gets gradients then;
    its base and other views of that still don't require grad."""
    x = world.constant(v).clone()
    y, other = taken(x, [view]), taken(x, [view])

    same(y.requires_grad_() is y, True, why="the flag is set in place")

    same([y.is_leaf, y._is_view(), y._base is x], [True, True, True], why="it is a view as before")
    same([x.requires_grad, other.requires_grad], [False, False], why="only y was made to require grad")
    (y * y + y * other + x.sum()).sum().backward()
    same(y.grad, 3 * y.detach(), why="y is the only variable")
    same([x.grad, other.grad], [None, None], why="these are constants")
    part = y[None]
    part.backward(weights(part))
    same(y.grad, 3 * y.detach() + weights(y), why="what is taken of y passes gradients on to y")


# What can't be shown, with the error: of a tensor of 2 rows and 3 columns.
IMPOSSIBLE = {
    "x.view(5)": (lambda x: x.view(5), RuntimeError, "is invalid for input of size 6"),
    "x.t().view(6)": (lambda x: x.t().view(6), RuntimeError, "Use .reshape(...) instead"),
    "x.reshape(4, -1)": (lambda x: x.reshape(4, -1), RuntimeError, "is invalid for input of size 6"),
    "x.expand(3, 3)": (lambda x: x.expand(3, 3), RuntimeError, "must match the existing size"),
    "x.expand(3)": (lambda x: x.expand(3), RuntimeError, "must be greater or equal to the number of dimensions"),
    "x.expand(-1, 2, 3)": (lambda x: x.expand(-1, 2, 3), RuntimeError, "non-existing dimension"),
    "x.narrow(0, 1, 2)": (lambda x: x.narrow(0, 1, 2), RuntimeError, "exceeds dimension size"),
    "x.select(0, 2)": (lambda x: x.select(0, 2), IndexError, "out of range"),
    "x[2]": (lambda x: x[2], IndexError, "out of bounds"),
    "x[0, 0, 0]": (lambda x: x[0, 0, 0], IndexError, "too many indices"),
    "x[::-1]": (lambda x: x[::-1], ValueError, "step must be greater than zero"),
    "x.permute(0, 0)": (lambda x: x.permute(0, 0), RuntimeError, ""),
    "x.permute([0])": (lambda x: x.permute([0]), RuntimeError, ""),
    "x.transpose(0, 2)": (lambda x: x.transpose(0, 2), IndexError, "Dimension out of range"),
    "x.unsqueeze(4)": (lambda x: x.unsqueeze(4), IndexError, "Dimension out of range"),
    "x.squeeze(2)": (lambda x: x.squeeze(2), IndexError, "Dimension out of range"),
    "x.movedim((0, 1), (0, 0))": (lambda x: x.movedim((0, 1), (0, 0)), RuntimeError, "repeated dim"),
    "x.unfold(0, 3, 1)": (lambda x: x.unfold(0, 3, 1), RuntimeError, "maximum size"),
    "x.unflatten(1, (2, 2))": (lambda x: x.unflatten(1, (2, 2)), RuntimeError, "multiply up to the size"),
    "x.diagonal(0, 1, 1)": (lambda x: x.diagonal(0, 1, 1), RuntimeError, "cannot be identical"),
    "x.unsqueeze(0).t()": (lambda x: x.unsqueeze(0).t(), RuntimeError, "<= 2 dimensions"),
    "x[0].mT": (lambda x: x[0].mT, RuntimeError, "matrices"),
    "x[0].H": (lambda x: x[0].H, RuntimeError, "matrices"),
    "x.as_strided((10,), (1,))": (lambda x: x.as_strided((10,), (1,)), RuntimeError, "out of bounds for storage"),
    "x.as_strided((2,), (-1,))": (lambda x: x.as_strided((2,), (-1,)), RuntimeError, "Negative strides"),
    "x.split([1, 2])": (lambda x: x.split([1, 2]), RuntimeError, "to sum exactly to 2"),
    "x.chunk(0)": (lambda x: x.chunk(0), RuntimeError, "greater than 0"),
    "x.hsplit(2)": (lambda x: x.hsplit(2), RuntimeError, "not divisible"),
    "x.dsplit(1)": (lambda x: x.dsplit(1), RuntimeError, "at least 3 dimension"),
    "x.tensor_split(0)": (lambda x: x.tensor_split(0), RuntimeError, "larger than 0"),
    "x[0, 0].unbind()": (lambda x: x[0, 0].unbind(), IndexError, "no dimensions"),
    "torch.view_as_complex(x)": (lambda x: torch.view_as_complex(x), RuntimeError, "last dimension of size 2"),
    "torch.view_as_complex(x.t())": (
        lambda x: torch.view_as_complex(x.t()),
        RuntimeError,
        "last dimension with stride 1",
    ),
    "x.imag": (lambda x: x.imag, Exception, "not implemented for tensors with non-complex dtypes"),
    "torch.view_as_real(x)": (lambda x: torch.view_as_real(x), Exception, "only supported for complex"),
    "x[0, 0].view(torch.uint8)": (lambda x: x[0, 0].view(torch.uint8), RuntimeError, "cannot be 0"),
    "x.t().view(torch.uint8)": (lambda x: x.t().view(torch.uint8), RuntimeError, "must be 1"),
    "x.float().view(torch.float64)": (lambda x: x.float().view(torch.float64), RuntimeError, "must be divisible by 2"),
}


@claim(
    cites=[
        "torch_tensor/view-needs-compatible-strides",
        "torch_tensor/view-as-dtype-has-conditions",
        "torch_tensor/expand-takes-singleton-dimensions",
        "torch/as-strided-stays-within-the-storage",
        "torch/view-as-real-is-for-complex-tensors",
        "torch_tensor/imag-is-for-complex-tensors",
    ]
)
@given(
    v=values(shapes=((2, 3),), layouts=("contiguous", "offset")),
    tried=some_of(IMPOSSIBLE),
    result=st.booleans(),
)
def spec_what_can_not_be_shown_is_an_error(world, v, tried, result):
    """A view that strides can't give, that would show what isn't there, or that isn't defined for the dtype is an
    error. Nothing is changed by it, and nothing recorded."""
    x = world.leaf(v)
    y = x * 1 if result else x
    before, history = y.detach().clone(), y.grad_fn

    for name in tried:
        operation, error, telling = IMPOSSIBLE[name]
        with raises(error, telling, why=f"{name} of {list(y.shape)}"):
            operation(y)

    same([y, list(y.shape), y._version], [before, [2, 3], 0], why="nothing was made of it")
    same(
        [y.grad_fn is history, y.requires_grad, y._is_view()],
        [True, True, x._is_view() and not result],
        why="nothing came",
    )
    y.backward(weights(y))
    same(x.grad, weights(x), why="its gradient is as before")
