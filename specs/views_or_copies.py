"""What may be a view, a copy or the tensor itself; and what shares memory with a tensor, but no history."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import forward_ad

from .kit import LAYOUTS, SMALL_DTYPES, WRITABLE, claim, raises, same, values
from .kit.choices import some_of
from .kit.views import shown, taken, view_chains
from .views import added_up, in_memory, weights

ROWS_AND_COLUMNS = ((2, 3), (3, 2), (2, 2), (1, 3), (2, 1))


def row_by_row(x):
    """The elements of x, one row after the other, in a new tensor."""
    indices = torch.cartesian_prod(*[torch.arange(size) for size in x.shape]).reshape(-1, x.dim())
    numbers = [x.detach()[tuple(index)].item() for index in indices.tolist()]
    return torch.tensor(numbers, dtype=x.dtype, device=x.device)


# Operations that give a view if they can, or a copy: of a tensor of two dimensions; with the shape that they give.
RESHAPES = {
    "x.reshape(-1)": (lambda x: x.reshape(-1), lambda m, n: (m * n,)),
    "torch.reshape(x, (x.size(1), x.size(0)))": (
        lambda x: torch.reshape(x, (x.size(1), x.size(0))),
        lambda m, n: (n, m),
    ),
    "x.reshape_as(x.new_empty(1, x.numel()))": (
        lambda x: x.reshape_as(x.new_empty(1, x.numel())),
        lambda m, n: (1, m * n),
    ),
    "x.reshape(x.size(0), 1, -1)": (lambda x: x.reshape(x.size(0), 1, -1), lambda m, n: (m, 1, n)),
    "x.flatten()": (lambda x: x.flatten(), lambda m, n: (m * n,)),
    "x.unsqueeze(0).flatten(1)": (lambda x: x.unsqueeze(0).flatten(1), lambda m, n: (1, m * n)),
    "x.ravel()": (lambda x: x.ravel(), lambda m, n: (m * n,)),
}


@claim(
    cites=[
        "tensor_views/reshape-may-copy",
        "torch/reshape-is-a-view-if-possible",
        "torch/flatten-copies-only-if-it-must",
        "torch/ravel-copies-only-if-it-must",
    ]
)
@given(v=values(shapes=ROWS_AND_COLUMNS), ways=some_of(RESHAPES, 4), result=st.booleans())
def spec_reshape_and_flatten_give_a_view_exactly_if_they_can(world, v, ways, result):
    """reshape, flatten and ravel give a view if strides can give the elements in the new shape, and a recorded copy
    otherwise. Numbers and gradients are those of the new shape in both cases."""
    x = world.leaf(v)
    base = x[...] if result else x
    (m, n), (down, right) = x.shape, x.stride()
    even = m == 1 or n == 1 or down == n * right  # one stride leads from each element to the next

    for way in ways:
        operation, new = RESHAPES[way]
        y, shape = operation(base), new(m, n)
        same(list(y.shape), list(shape), why=f"of {list(x.shape)} this is {way}")
        same(row_by_row(y), row_by_row(x), why="the elements keep their order")
        viewable = x.is_contiguous() if way == "x.ravel()" else even or len(shape) == 3 or shape == (m, n)
        same(y.data_ptr() == x.data_ptr(), viewable, why=f"the strides of x are {x.stride()}")
        same(y.is_leaf, False, why="view or copy, it was recorded")
        x.grad = None
        (y * weights(y)).sum().backward()
        same(x.grad, weights(y).reshape(x.shape), why=f"under {way} the elements keep their order")


# Operations that give the tensor itself where there is nothing to do.
ITSELF = {
    "x.contiguous()": lambda x: x.contiguous(),
    "x.to(x.dtype)": lambda x: x.to(x.dtype),
    "x.to(x)": lambda x: x.to(x),
    "x.to(x.device)": lambda x: x.to(x.device),
    "x.to(x.device, x.dtype, copy=False)": lambda x: x.to(x.device, x.dtype, copy=False),
    "x.type(x.dtype)": lambda x: x.type(x.dtype),
    "x.type_as(x)": lambda x: x.type_as(x),
    "x.real": lambda x: x.real,
    "x.conj()": lambda x: x.conj(),
    "x.resolve_conj()": lambda x: x.resolve_conj(),
    "x.resolve_neg()": lambda x: x.resolve_neg(),
    "x.positive()": lambda x: x.positive(),
    "+x": lambda x: +x,
    "torch.flatten(x, -1)": lambda x: torch.flatten(x, -1),
    "torch.atleast_1d(x)": lambda x: torch.atleast_1d(x),
    "torch.atleast_1d(x, x)[1]": lambda x: torch.atleast_1d(x, x)[1],
    "x.sum_to_size(x.shape)": lambda x: x.sum_to_size(x.shape),
}


@claim(
    cites=[
        "tensor_views/contiguous-gives-itself-or-a-copy",
        "torch_tensor/contiguous-returns-contiguous-tensors-themselves",
        "torch_tensor/conversion-without-change-returns-the-tensor",
        "torch_tensor/real-of-a-real-tensor-is-itself",
        "torch/flatten-copies-only-if-it-must",
        "torch/atleast-returns-large-inputs-as-they-are",
        "torch/positive-returns-the-input",
    ]
)
@given(
    v=values(shapes=((1,), (3,), (2, 3), (0,), (2, 1, 3)), dtypes=SMALL_DTYPES, layouts=("contiguous", "offset")),
    ways=some_of(ITSELF),
    kind=st.sampled_from(["leaf", "result", "view", "constant"]),
)
def spec_an_operation_with_nothing_to_do_gives_the_tensor_itself(world, v, ways, kind):
    """contiguous() of what is contiguous, to() the same dtype and device, the real part of a real tensor and the like
    give the tensor itself, a leaf too, and record nothing."""
    x = world.constant(v) if kind == "constant" else world.leaf(v)
    x = {"result": lambda: x * 1, "view": lambda: x[...]}.get(kind, lambda: x)()
    leaf, history = x.is_leaf, x.grad_fn

    for way in ways:
        same(ITSELF[way](x) is x, True, why=f"x is a {kind} with strides {x.stride()}, and nothing is left to do")
    same([x.is_leaf, x.grad_fn is history, x.requires_grad], [leaf, True, kind != "constant"], why="it is x as it was")


# Operations that give a tensor with memory of its own.
COPIES = {
    "x.clone()": lambda x: x.clone(),
    "torch.clone(x, memory_format=torch.contiguous_format)": lambda x: torch.clone(
        x, memory_format=torch.contiguous_format
    ),
    "x.to(x.dtype, copy=True)": lambda x: x.to(x.dtype, copy=True),
    "x.to(x.device, copy=True)": lambda x: x.to(x.device, copy=True),
    "x.to(torch.float16)": lambda x: x.to(torch.float16),
    "x.repeat(1, 1)": lambda x: x.repeat(1, 1),
    "torch.cat([x])": lambda x: torch.cat([x]),
    "x.index_select(0, torch.arange(x.size(0)))": lambda x: x.index_select(0, torch.arange(x.size(0), device=x.device)),
    "x.transpose(0, 1).contiguous().transpose(0, 1)": lambda x: x.flip(0).transpose(0, 1).contiguous().t().flip(0),
    "torch.view_copy(x, x.shape)": lambda x: torch.view_copy(x, x.shape),
    "torch.alias_copy(x)": lambda x: torch.alias_copy(x),
    "torch.expand_copy(x, x.shape)": lambda x: torch.expand_copy(x, x.shape),
    "torch.permute_copy(x, (0, 1))": lambda x: torch.permute_copy(x, (0, 1)),
    "torch.as_strided_copy(x, x.shape, x.stride())": lambda x: torch.as_strided_copy(x, x.shape, x.stride()),
    "torch.t_copy(torch.transpose_copy(x, 0, 1))": lambda x: torch.t_copy(torch.transpose_copy(x, 0, 1)),
    "torch.squeeze_copy(torch.unsqueeze_copy(x, 0), 0)": lambda x: torch.squeeze_copy(torch.unsqueeze_copy(x, 0), 0),
    "torch.stack(torch.unbind_copy(x))": lambda x: torch.stack(torch.unbind_copy(x)),
    "torch.cat(torch.split_copy(x, 1))": lambda x: torch.cat(torch.split_copy(x, 1)),
    "torch.slice_copy(x, 0, 0, None, 1)": lambda x: torch.slice_copy(x, 0, 0, None, 1),
    "torch.select_copy(x[None], 0, 0)": lambda x: torch.select_copy(x[None], 0, 0),
}


@claim(
    cites=[
        "torch/clone-is-differentiable",
        "torch_tensor/to-copy-always-copies",
        "torch/copy-variants-share-nothing",
        "tensor_views/contiguous-gives-itself-or-a-copy",
    ],
    needs=["float16", "in-place"],
)
@given(
    v=values(shapes=ROWS_AND_COLUMNS, dtypes=("float64", "float32", "bfloat16"), layouts=WRITABLE),
    ways=some_of(COPIES, 4),
)
def spec_a_copy_has_memory_of_its_own_but_the_history_goes_on(world, v, ways):
    """clone(), to() with copy=True or another dtype, and the variants of views that copy give tensors that are no views
    and share no memory with the original, but gradients go through them. A copy may be written, that of a leaf too."""
    x = world.leaf(v)
    before, gradient = x.detach().clone(), torch.zeros_like(x).detach()

    for number, way in enumerate(ways, start=2):
        y = COPIES[way](x)
        same(y.detach().to(x.dtype), before, why=f"it is {way}")
        same([y._is_view(), y.is_leaf, y.requires_grad], [False, False, True], why=f"{way} is recorded")
        y.mul_(number)
        same([x, x._version], [before, 0], why=f"{way} has memory of its own")
        y[0] = 5
        y.backward(weights(y))
        gradient[1:] += number * weights(x)[1:]
        same(x.grad, gradient, why=f"{way} was multiplied by {number}, and its first row filled")


@claim(cites=["torch/narrow-copy-copies"], since="2.13")
@given(v=values(shapes=ROWS_AND_COLUMNS), dim=st.integers(-1, 1), last=st.booleans())
def spec_narrow_copy_is_recorded(world, v, dim, last):
    """narrow_copy() gives what narrow() shows as a copy, through which gradients go."""
    x = world.leaf(v)
    start = x.size(dim) - 1 if last else 0
    shows = torch.arange(x.numel()).reshape(x.shape).narrow(dim, start, 1)

    y = x.narrow_copy(dim, start, 1)

    same(y.detach(), x.detach().reshape(-1)[shows], why="this is what narrow() shows")
    same([y._is_view(), y.is_leaf], [False, False], why="it is a recorded copy")
    y.backward(weights(y))
    same(x.grad, added_up(weights(y), shows.reshape(-1).tolist(), x), why="this is what narrow() shows")


@claim(cites=["torch/narrow-copy-copies"], observed=True, until="2.12")
@given(v=values(shapes=ROWS_AND_COLUMNS), dim=st.integers(-1, 1), result=st.booleans())
def spec_narrow_copy_has_no_derivative(world, v, dim, result):
    """narrow_copy() of a tensor that requires grad gives a copy that does, too, but backward through it is an error."""
    x = world.leaf(v)
    y = (x * 1 if result else x).narrow_copy(dim, 0, 1)

    same([y.detach(), y.requires_grad, y._is_view()], [x.detach().narrow(dim, 0, 1), True, False], why="it is a copy")
    with raises(RuntimeError, "derivative for aten::narrow_copy is not implemented", why="nobody wrote it"):
        y.sum().backward()
    same(x.grad, None, why="backward failed")
    y.detach().fill_(9)
    same(x.detach(), world.constant(v), why="y is a copy")


@claim(cites=["torch_tensor/integers-do-not-require-grad"])
@given(v=values(), dtype=st.sampled_from(["int64", "int32", "uint8", "bool"]), kind=st.sampled_from(["to", "type"]))
def spec_what_is_cast_to_integers_is_cut_off(world, v, dtype, kind):
    """A tensor cast to integers or truth values doesn't require grad and has no history, whatever it was cast from."""
    x = world.leaf(v)

    y = x.to(getattr(torch, dtype)) if kind == "to" else x.type(getattr(torch, dtype))

    same([y.requires_grad, y.is_leaf, y.grad_fn, y._is_view()], [False, True, None, False], why=f"it is {dtype}")
    (x * y).sum().backward()
    same(x.grad, y.to(x.dtype), why="y is a constant")


# Indices of a tensor of 3 rows and 2 columns, and whether they give a view; what a view shows, or a copy has, are the
# elements counted row by row.
INDICES = {
    "x[1]": (lambda x: x[1], True, [2, 3]),
    "x[-1, 1]": (lambda x: x[-1, 1], True, 5),
    "x[1:, 0]": (lambda x: x[1:, 0], True, [2, 4]),
    "x[::2]": (lambda x: x[::2], True, [[0, 1], [4, 5]]),
    "x[..., None, 1]": (lambda x: x[..., None, 1], True, [[1], [3], [5]]),
    "x[torch.tensor(1)]": (lambda x: x[torch.tensor(1)], True, [2, 3]),
    "x[0:2, torch.tensor(-1)]": (lambda x: x[0:2, torch.tensor(-1)], True, [1, 3]),
    "x[[1]]": (lambda x: x[[1]], False, [[2, 3]]),
    "x[[0, 2, 0]]": (lambda x: x[[0, 2, 0]], False, [[0, 1], [4, 5], [0, 1]]),
    "x[torch.tensor([[2, 2]])]": (lambda x: x[torch.tensor([[2, 2]])], False, [[[4, 5], [4, 5]]]),
    "x[:, [1, 1, 0]]": (lambda x: x[:, [1, 1, 0]], False, [[1, 1, 0], [3, 3, 2], [5, 5, 4]]),
    "x[[0, 0, 2], [1, 1, 0]]": (lambda x: x[[0, 0, 2], [1, 1, 0]], False, [1, 1, 4]),
    "x[[2, 0], 1:]": (lambda x: x[[2, 0], 1:], False, [[5], [1]]),
    "x[[-1, -1], None]": (lambda x: x[[-1, -1], None], False, [[[4, 5]], [[4, 5]]]),
    "x[[True, False, True]]": (lambda x: x[[True, False, True]], False, [[0, 1], [4, 5]]),
    "x[torch.tensor([True, False, True]), 0]": (lambda x: x[torch.tensor([True, False, True]), 0], False, [0, 4]),
    "x[torch.ones(3, 2, dtype=torch.bool)]": (
        lambda x: x[torch.ones(3, 2, dtype=torch.bool)],
        False,
        [0, 1, 2, 3, 4, 5],
    ),
    "x[True]": (lambda x: x[True], False, [[[0, 1], [2, 3], [4, 5]]]),
    "x[torch.tensor(True)]": (lambda x: x[torch.tensor(True)], False, [[[0, 1], [2, 3], [4, 5]]]),
}


@claim(
    cites=["tensor_views/basic-indexing-gives-views", "tensor_views/advanced-indexing-copies"],
    needs=["in-place", "views"],
)
@given(v=values(shapes=((3, 2),), dtypes=SMALL_DTYPES, layouts=WRITABLE), indices=some_of(INDICES))
def spec_basic_indexing_gives_views_and_advanced_indexing_copies(world, v, indices):
    """Numbers (0-dim tensors of them too), slices, None and ... as an index give a view; lists, tensors and masks
    give a copy. The gradient goes to the elements that were picked, once for each time."""
    x = world.leaf(v)
    before, gradient = x.detach().clone(), torch.zeros_like(x).detach()

    for index in indices:
        operation, view, positions = INDICES[index]
        y = operation(x)
        positions = torch.tensor(positions)
        same(y, before[positions // 2, positions % 2], why=f"it is {index}")
        same([y._is_view(), y._base is not None, y.is_leaf], [view, view, False], why=f"it is {index}")
        gradient += added_up(weights(y), positions.reshape(-1).tolist(), x)
        y.backward(weights(y))
        same(x.grad, gradient, why=f"it is {index}")
        with torch.no_grad():
            y.fill_(9)
            same(bool((x != before).any()), view and bool((before[positions // 2, positions % 2] != 9).any()),
                 why=f"{index} was written")  # fmt: skip
            x.copy_(before)


@claim(
    cites=[
        "tensor_views/detach-is-a-view-operation",
        "torch_tensor/detached-shares-storage",
        "introyt/detach-makes-a-copy",
    ],
    needs=["in-place", "views"],
)
@given(case=view_chains(count=2, layouts=WRITABLE), data=st.booleans(), result=st.booleans())
def spec_a_detached_tensor_shares_memory_but_is_no_view(world, case, data, result):
    """detach() and .data make no copy: what they give lies in the same memory as the tensor or view, with the same
    strides, and shows its writes. But it isn't a view: _is_view() is False, and there is no _base."""
    v, chains = case
    x = world.leaf(v) * 1 if result else world.leaf(v)

    for number, chain in enumerate(chains):
        y = taken(x, chain)
        z = y.data if data else y.detach()
        same([z._is_view(), z._base, z.is_leaf, z.requires_grad], [False, None, True, False], why=f"y is {chain} of x")
        same([z, in_memory(z), z.data_ptr()], [y, in_memory(y), y.data_ptr()], why=f"y is {chain} of x")
        with torch.no_grad():
            x.fill_(number + 5)
        same(z, torch.full_like(z, number + 5), why="the memory was written")
        if len(set(in_memory(z))) == len(in_memory(z)):
            z.fill_(number + 7)
            same(y.detach(), torch.full_like(z, number + 7), why="the memory was written")
    same([x.requires_grad, x.is_leaf], [True, not result], why="x was not detached")


# Changes of what a tensor is rather than of what it holds.
METADATA = {
    "resize_": lambda y: y.resize_(y.numel() + 3),
    "resize_as_": lambda y: y.resize_as_(y.new_empty(1)),
    "t_": lambda y: y.t_(),
    "transpose_": lambda y: y.transpose_(0, 1),
    "unsqueeze_": lambda y: y.unsqueeze_(0),
    "squeeze_": lambda y: y.squeeze_(),
    "as_strided_": lambda y: y.as_strided_((1,), (1,)),
    "set_": lambda y: y.set_(y.new_zeros(5)),
    ".data": lambda y: setattr(y, "data", y.new_zeros(5)),
}


@claim(cites=["tensor_views/detach-is-a-view-operation", "torch_tensor/detached-shares-storage"], needs=["in-place"])
@given(
    v=values(shapes=ROWS_AND_COLUMNS, layouts=("contiguous", "transposed")),
    changes=some_of(METADATA),
    data=st.booleans(),
    result=st.booleans(),
)
def spec_changes_of_size_and_strides_of_a_detached_tensor_stay_with_it(world, v, changes, data, result):
    """The size, strides and storage of a detached tensor can be changed in place; the original keeps its own, its
    numbers, its version and its history."""
    x = world.leaf(v) * 1 if result else world.leaf(v)
    before = [x.detach().clone(), list(x.shape), x.stride(), x.grad_fn, x.is_leaf, x.requires_grad]

    for change in changes:
        y = x.data if data else x.detach()
        METADATA[change](y)
        now = [x, list(x.shape), x.stride(), x.grad_fn, x.is_leaf, x.requires_grad]
        same(now, before, why=f"{change} was done to what was detached")


@claim(observed=True)
@given(
    v=values(shapes=((2, 3), (2,), (1,), ())), change=st.sampled_from(["resize_", "resize_as_"]), result=st.booleans()
)
def spec_a_tensor_that_requires_grad_can_not_be_resized(world, v, change, result):
    """resize_() of a tensor that requires grad, leaf or not, is an error, and leaves it as it was."""
    x = world.leaf(v)
    y = x * 1 if result else x
    before, history = y.detach().clone(), y.grad_fn

    with raises(RuntimeError, "cannot resize variables that require grad", why="y requires grad"):
        METADATA[change](y)

    same([y, list(y.shape), y.grad_fn is history], [before, list(before.shape), True], why="nothing was done")
    y.backward(weights(y))
    same(x.grad, weights(x), why="nothing was done")


@claim(cites=["torch_tensor/detached-tensors-have-no-tangent", "torch_tensor/detach-leaves-the-graph"])
@given(v=values(layouts=LAYOUTS[:4]), way=st.sampled_from(["detach", "detach_", "data", "view"]), result=st.booleans())
def spec_detaching_drops_the_tangent_of_forward_mode(world, v, way, result):
    """What detach() gives has no tangent of forward mode, nor has a tensor itself after detach_(); that of the original
    stays. A view has the tangent of what it shows."""
    x = world.constant(v).clone()
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, weights(x))
        y = dual + dual if result else dual.clone()
        tangent = weights(x) * (2 if result else 1)

        z = {"detach": y.detach, "detach_": y.detach_, "data": lambda: y.data, "view": lambda: y[...]}[way]()

        same(forward_ad.unpack_dual(z).tangent, tangent if way == "view" else None, why=f"z came by {way}")
        same(z, x * (2 if result else 1), why="the number is the same")
        stays = None if way == "detach_" else tangent
        same(forward_ad.unpack_dual(y).tangent, stays, why="only detach_ changes the tensor itself")


# The functions that embed a source into a copy, and the view of x in whose place they put it.
SCATTERS = {
    "x.select_scatter(s, 0, 0)": (lambda x, s: x.select_scatter(s, 0, 0), "x[0]"),
    "torch.select_scatter(x, s, -1, -1)": (lambda x, s: torch.select_scatter(x, s, -1, -1), "x[..., -1]"),
    "x.slice_scatter(s, 0, 1, None, 1)": (lambda x, s: x.slice_scatter(s, 0, 1, None, 1), "x[1:]"),
    "torch.slice_scatter(x, s, 0, None, None, 2)": (lambda x, s: torch.slice_scatter(x, s, 0, None, None, 2), "x[::2]"),
    "x.diagonal_scatter(s)": (lambda x, s: x.diagonal_scatter(s), "x.diagonal()"),
    "torch.diagonal_scatter(x, s, 1)": (lambda x, s: torch.diagonal_scatter(x, s, 1), "x.diagonal(1)"),
}


@claim(cites=["torch/scatter-variants-embed-into-a-copy"], needs=["in-place"])
@given(v=values(shapes=((2, 3), (3, 2), (2, 2), (3, 3))), way=st.sampled_from(list(SCATTERS)), number=st.integers(5, 7))
def spec_the_scatter_variants_put_a_source_into_a_copy(world, v, way, number):
    """select_scatter, slice_scatter and diagonal_scatter give a copy in which the source stands at what the view shows.
    Its gradient goes to the source there, and to the input everywhere else."""
    x = world.leaf(v)
    scatter, view = SCATTERS[way]
    source = torch.full_like(taken(x, [view]), number).detach().requires_grad_()
    before, (shape, positions) = x.detach().clone(), shown(x, [view])

    y = scatter(x, source)
    y.backward(weights(y))

    expected, kept = before.clone().reshape(-1), weights(y).reshape(-1).clone()
    expected[positions], kept[positions] = number, 0
    same(y.detach(), expected.reshape(x.shape), why=f"it is {way}")
    same(x.grad, kept.reshape(x.shape), why=f"{view} is overwritten")
    same(source.grad, weights(y).reshape(-1)[positions].reshape(shape), why=f"it stands at {view}")
    same(y._is_view(), False, why="it has memory of its own")
    with torch.no_grad():
        y.fill_(9)
    same([x, source], [before, torch.full_like(source, number)], why="it has memory of its own")


@claim(cites=["torch/slice-scatter-has-defaults"], since="2.0")
@given(
    v=values(shapes=((2, 3), (3, 2), (3,), (1, 2))),
    start=st.sampled_from([None, 0, -1]),
    function=st.booleans(),
)
def spec_slice_scatter_and_slice_copy_take_the_whole_dimension_by_default(world, v, start, function):
    """Without an end and a step, slice_scatter and slice_copy take all from the start on, which is 0 by default."""
    x = world.leaf(v)
    rows = x.detach()[start:]
    source, options = torch.full_like(rows, 7).requires_grad_(), {} if start is None else {"start": start}

    same(torch.slice_copy(x, 0, **options).detach(), rows, why=f"it starts at {start}")
    y = torch.slice_scatter(x, source, **options) if function else x.slice_scatter(source, **options)
    y.backward(weights(y))

    expected, kept = x.detach().clone(), weights(x).clone()
    expected[start:], kept[start:] = 7, 0
    same([y.detach(), x.grad], [expected, kept], why=f"the source stands behind {start}")
    same(source.grad, weights(x)[start:], why=f"the source stands behind {start}")


@claim(cites=["torch/as-strided-scatter-embeds-into-a-copy"], observed=True, since="2.0", needs=["in-place"])
@given(
    v=values(shapes=((2, 3), (3, 2), (6,)), layouts=("contiguous",)),
    strides=st.sampled_from([((2,), (1,), 0), ((2, 2), (1, 2), 0), ((2,), (3,), 1), ((), (), 5)]),
)
def spec_as_strided_scatter_gives_its_input_the_wrong_gradients(world, v, strides):
    """as_strided_scatter puts a source into a copy at what lies at these strides, and gives the source its gradient.
    But the input gets the gradients by the elements that were overwritten, and none by those that were kept."""
    x = world.leaf(v)
    size, stride, offset = strides
    source = torch.full(tuple(size), 7, dtype=x.dtype, device=x.device).requires_grad_()
    positions = in_memory(torch.empty(12).as_strided(tuple(size), tuple(stride), offset))

    y = torch.as_strided_scatter(x, source, tuple(size), tuple(stride), offset)
    y.backward(weights(y))

    expected, overwritten = x.detach().reshape(-1).clone(), torch.zeros_like(x).detach().reshape(-1)
    expected[positions], overwritten[positions] = 7, weights(y).reshape(-1)[positions]
    same(y.detach(), expected.reshape(x.shape), why=f"the source stands at {positions}")
    same(source.grad, weights(y).reshape(-1)[positions].reshape(tuple(size)), why=f"the source stands at {positions}")
    same(y._is_view(), False, why="it has memory of its own")
    same(x.grad, overwritten.reshape(x.shape), why="the chain rule asks for zeros here, and weights elsewhere")


@claim(observed=True)
@given(
    v=values(shapes=((2,), (2, 3), (2, 1)), layouts=("expanded",)),
    way=st.sampled_from(["as_strided", "as_strided_copy", "view"]),
)
def spec_as_strided_shares_the_gradient_among_elements_in_one_place(world, v, way):
    """If elements of a tensor that requires grad lie in one place of memory, as_strided shares the gradient by that
    place among them in equal parts; other views give it to those that they show."""
    x = world.leaf(v)
    show = {
        "as_strided": lambda: x.as_strided(x.shape[1:], x.stride()[1:]),
        "as_strided_copy": lambda: torch.as_strided_copy(x, x.shape[1:], x.stride()[1:]),
        "view": lambda: x[0],
    }[way]
    y = show()

    same(y, x.detach()[0], why="it is the first row")
    y.backward(2 * weights(y))

    zeros = torch.zeros_like(weights(y))
    expected = torch.stack([2 * weights(y), zeros] if way == "view" else [weights(y)] * 2)
    same(x.grad, expected, why="both rows lie in one place")
