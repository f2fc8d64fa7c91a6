"""Writes through views: they are writes to the base and to all its other views, recorded for all of them."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import claim, raises, same, values
from .kit.choices import some_of
from .kit.views import shown, taken, view_chains
from .views import like, weights

# Writes in place, with a source s as large as what is written: the new number of an element, its derivative by the
# old number y and by the number s of the source, and whether autograd keeps the source for that.
WRITES = {
    "view.mul_(2)": (lambda view, s: view.mul_(2), lambda y, s: (2 * y, 2, 0)),
    "view.add_(s)": (lambda view, s: view.add_(s), lambda y, s: (y + s, 1, 1)),
    "view.copy_(s)": (lambda view, s: view.copy_(s), lambda y, s: (s, 0, 1)),
    "view.mul_(s)": (lambda view, s: view.mul_(s), lambda y, s: (y * s, s, y)),
    "view.sub_(s, alpha=2)": (lambda view, s: view.sub_(s, alpha=2), lambda y, s: (y - 2 * s, 1, -2)),
    "view.zero_()": (lambda view, s: view.zero_(), lambda y, s: (0, 0, 0)),
    "view.fill_(3)": (lambda view, s: view.fill_(3), lambda y, s: (3, 0, 0)),
    "view.add_(1)": (lambda view, s: view.add_(1), lambda y, s: (y + 1, 1, 0)),
    "view.neg_()": (lambda view, s: view.neg_(), lambda y, s: (-y, -1, 0)),
    "view.addcmul_(s, s)": (lambda view, s: view.addcmul_(s, s), lambda y, s: (y + s * s, 1, 2 * s)),
    "view.masked_fill_(s > 0, 4)": (
        lambda view, s: view.masked_fill_(s.detach() > 0, 4),
        lambda y, s: (4, 0, 0) if s > 0 else (y, 1, 0),
    ),
    "view.clamp_(-1000, 1000)": (lambda view, s: view.clamp_(-1000, 1000), lambda y, s: (y, 1, 0)),
    "view.lerp_(s, 2.0)": (lambda view, s: view.lerp_(s, 2.0), lambda y, s: (2 * s - y, -1, 2)),
    "view.add_(s.float())": (lambda view, s: view.add_(s.float()), lambda y, s: (y + s, 1, 1)),
    "view[None].mul_(-1)[0]": (lambda view, s: view[None].mul_(-1)[0], lambda y, s: (-y, -1, 0)),
    "no_grad: view.mul_(2)": (lambda view, s: torch.no_grad()(view.mul_)(2), lambda y, s: (2 * y, 1, 0)),
    "no_grad: view.copy_(s)": (lambda view, s: torch.no_grad()(view.copy_)(s), lambda y, s: (s, 1, 0)),
}
FROM_A_SOURCE = [name for name in WRITES if "s)" in name or "s," in name]
SOME_WRITES = st.lists(st.sampled_from([*WRITES, *FROM_A_SOURCE]), min_size=3, max_size=3)


def row_of(x):
    """The numbers of x, row by row."""
    return x.detach().reshape(-1).tolist()


def source_for(view, number, small=False):
    """A leaf to write into a view, of its shape and dtype, or with one row that stands for all."""
    source = ((weights(view) + number) % 5 - 1).detach()
    return (source[:1].clone() if small and view.dim() else source).requires_grad_()


class Elements:
    """The elements of a tensor y, each with its derivative by what y was made of; by hand, one after the other."""

    def __init__(self, x):
        self.numbers = x.detach().clone(memory_format=torch.contiguous_format).view(-1).tolist()
        self.slopes = [1] * x.numel()
        self.paths = []  # what came from sources: which one, which of its elements, where to, and the derivative

    def write(self, positions, rule, source):
        """Write the elements at these positions, each by the rule from its number and that of the source."""
        numbers = row_of(source)
        for number, at in enumerate(positions):
            i = number % len(numbers)  # of a source with a single row
            self.numbers[at], by_y, by_s = rule(self.numbers[at], numbers[i])
            self.slopes[at] *= by_y
            self.paths = [(t, j, to, slope * (by_y if to == at else 1)) for t, j, to, slope in self.paths]
            self.paths.append((source, i, at, by_s))

    def gradients(self, x, sources, flowing):
        """The gradients by x and by the sources, for the gradients that flow into the elements."""
        by_x = [slope * g for slope, g in zip(self.slopes, flowing)]
        by_sources = [[0] * source.numel() for source in sources]
        for source, i, at, slope in self.paths:
            for known, sums in zip(sources, by_sources):
                if known is source:
                    sums[i] += slope * flowing[at]
        return [torch.tensor(sums, dtype=x.dtype, device=x.device).view(t.shape)
                for sums, t in zip([by_x, *by_sources], [x, *sources])]  # fmt: skip


def flowing_into(x, views, chains):
    """For each element of x the sum of the weights of those elements of the views that show it."""
    sums = [0] * x.numel()
    for view, chain in zip(views, chains):
        for at, weight in zip(shown(x, chain)[1], weights(view.detach()).reshape(-1).tolist(), strict=True):
            sums[at] += weight
    return sums


@claim(
    cites=[
        "tensor_views/edits-of-views-show-in-the-base",
        "autograd_mechanics/no-error-means-right-gradients",
        "autograd_mechanics/grad-fn-is-the-way-into-the-graph",
    ],
    needs=["in-place", "views"],
)
@given(
    case=view_chains(count=3, writable=True),
    names=SOME_WRITES,
    early=st.sampled_from(["all", "none", "some"]),
    through=st.sampled_from(["base", "views", "new views"]),
    small=st.booleans(),
)
def spec_a_write_to_a_view_is_recorded_for_the_base_and_all_views(world, case, names, early, through, small):
    """A write to a view of a result, recorded or not, is a write to the base and to all views, taken before or after.
    The gradient by any of them goes to what was written, and to the old elements as far as they still count."""
    v, chains = case
    x = world.leaf(v)
    y = x * 1
    by_hand, sources = Elements(x), []
    taken_before = [taken(y, chain) for chain in chains]

    for number, (name, chain) in enumerate(zip(names, chains)):
        write, rule = WRITES[name]
        before = early == "all" or (early == "some" and number % 2)
        view = taken_before[number] if before else taken(y, chain)
        sources.append(source_for(view, number, small))
        same(list(write(view, sources[-1]).shape), list(view.shape), why="a write gives what was written")
        by_hand.write(shown(x, chain)[1], rule, sources[-1])
        expected = torch.tensor(by_hand.numbers, dtype=x.dtype, device=x.device)
        same(y.detach(), expected.view(x.shape), why=f"these were written: {list(zip(chains, names))[: number + 1]}")
        for other, shows in zip(taken_before, chains):
            shape, positions = shown(x, shows)
            same(other.detach(), expected[positions].view(shape), why=f"{shows} shows the same memory")

    if through == "base":
        y.backward(weights(y))
        flowing = weights(y).reshape(-1).tolist()
    else:
        roots = taken_before if through == "views" else [taken(y, chain) for chain in chains]
        torch.autograd.backward(roots, [weights(root.detach()) for root in roots])
        flowing = flowing_into(x, roots, chains)
    expected = by_hand.gradients(x, sources, flowing)
    same(x.grad, expected[0], why=f"these were written: {list(zip(chains, names))}")
    for source, gradient in zip(sources, expected[1:]):
        same(torch.zeros_like(source).detach() if source.grad is None else source.grad, gradient, why="it was a source")


@claim(
    cites=[
        "autograd_mechanics/no-error-means-right-gradients",
        "torch_autograd/create-graph-allows-higher-derivatives",
    ],
    since="2.0",
    needs=["in-place", "views"],
)
@given(case=view_chains(count=2, writable=True), base=st.booleans(), passes=st.integers(1, 2))
def spec_gradients_behind_a_write_to_a_view_can_be_differentiated(world, case, base, passes):
    """Gradients that go through a write to a view can be differentiated again, and twice through the same graph."""
    v, (chain, other) = case
    x = world.leaf(v)
    y = x * x
    seen = taken(y, other)
    s = source_for(taken(y, chain), 1)
    taken(y, chain).mul_(s)
    root, positions = (y if base else seen), shown(x, chain)[1]

    for _ in range(passes):
        x.grad = s.grad = None
        by_x, by_s = torch.autograd.grad(root, [x, s], weights(root), create_graph=True)
        torch.autograd.backward([by_x, by_s], [weights(x), weights(s)], retain_graph=True)

    flowing = weights(y).reshape(-1).tolist() if base else flowing_into(x, [seen], [other])
    old, factor, direction = row_of(x), row_of(s), row_of(weights(s))
    first, second = [2 * f * o for f, o in zip(flowing, old)], [2 * f * w for f, w in zip(flowing, row_of(weights(x)))]
    by_factor, mixed = [], []
    for i, at in enumerate(positions):
        by_factor.append(flowing[at] * old[at] ** 2)
        mixed.append(2 * flowing[at] * old[at] * row_of(weights(x))[at])
        second[at] = second[at] * factor[i] + 2 * flowing[at] * old[at] * direction[i]
        first[at] *= factor[i]
    for got, expected in ((by_x, first), (by_s, by_factor), (x.grad, second), (s.grad, mixed)):
        same(got.detach(), like(got, expected), why=f"{chain} of x * x was multiplied by s")


@claim(
    cites=["autograd_mechanics/tracked-if-an-input-requires-grad", "tensor_views/edits-of-views-show-in-the-base"],
    needs=["in-place", "views"],
)
@given(
    case=view_chains(count=3, writable=True),
    name=st.sampled_from(["view.add_(s)", "view.copy_(s)", "view.mul_(s)", "view.lerp_(s, 2.0)"]),
    through=st.integers(-1, 2),
)
def spec_a_constant_becomes_a_result_by_a_write_to_its_view(world, case, name, through):
    """If a tensor that requires grad is written into a view of one that doesn't, base and views, those taken before
    too, are results that require grad from then on. The gradient goes to what was written, and to nothing else."""
    v, chains = case
    x = world.constant(v).clone()
    views = [taken(x, chain) for chain in chains]
    by_hand, source = Elements(x), source_for(views[0], 1)
    write, rule = WRITES[name]

    write(views[0], source)

    by_hand.write(shown(x, chains[0])[1], rule, source)
    for tensor in [x, *views]:
        same([tensor.requires_grad, tensor.is_leaf, tensor.grad_fn is None], [True, False, False], why="it was written")
    same([x._is_view(), *[view._base is x for view in views]], [False, True, True, True], why="x is the base still")
    root, chain = (x, []) if through < 0 else (views[through], chains[through])
    root.backward(weights(root))
    _, expected = by_hand.gradients(x, [source], flowing_into(x, [root], [chain]))
    same(source.grad, expected, why=f"{chains[0]} was written, and {chain} is the root")


@claim(observed=True, needs=["in-place", "views"])
@given(
    case=view_chains(count=3, writable=True),
    written=st.integers(-1, 2),
    quiet=st.booleans(),
)
def spec_what_was_made_before_a_write_keeps_its_history(world, case, written, quiet):
    """A write to the base or to a view gives all of them new histories: their grad_fn is another one. What was computed
    from them before keeps its own: its gradient is that of the old elements."""
    v, chains = case
    x = world.leaf(v)
    y = x * 1
    views = [taken(y, chain) for chain in chains]
    earlier, histories = [view * 2 for view in views], [view.grad_fn for view in views]
    base_history = y.grad_fn

    write = (y if written < 0 else views[written]).mul_
    torch.no_grad()(write)(3) if quiet else write(3)

    for view, history in zip(views, histories):
        same([view.grad_fn is history, view.is_leaf], [False, False], why="the memory was written")
    same(y.grad_fn is base_history, quiet, why="a recorded write is the newest operation on the base")
    same([y._version, *[view._version for view in views]], [1] * (1 + len(views)), why="all count this write")
    torch.autograd.backward(earlier, [weights(view) for view in views], retain_graph=True)
    old = torch.tensor(flowing_into(x, views, chains), dtype=x.dtype, device=x.device).view(x.shape)
    same(x.grad, 2 * old, why="these were computed before")

    x.grad = None
    torch.autograd.backward(views, [weights(view.detach()) for view in views])
    new = old.clone().view(-1)
    if not quiet:
        for position in range(x.numel()) if written < 0 else shown(x, chains[written])[1]:
            new[position] *= 3
    same(x.grad, new.view(x.shape), why="the views show what was written")


@claim(
    cites=[
        "autograd_mechanics/hooks-see-the-value-before-a-change-in-place",
        "autograd_mechanics/hooks-are-bound-to-the-grad-fn",
    ],
    needs=["in-place", "views"],
)
@given(
    case=view_chains(count=2, writable=True),
    written=st.sampled_from(["base", "view", "another view"]),
    before=st.booleans(),
)
def spec_a_hook_on_a_view_belongs_to_the_history_that_it_had(world, case, written, before):
    """A hook that was registered on a view before its memory was written is called for what was computed from the view
    before; one that is registered after that, for what is computed from then on."""
    v, (chain, other) = case
    x = world.leaf(v)
    y = x * 1
    view, seen = taken(y, chain), []
    if before:
        view.register_hook(lambda gradient: seen.append(gradient.clone()))
    earlier = view * 2

    {"base": y, "view": view, "another view": taken(y, other)}[written].add_(1)
    same(view.grad_fn is None, False, why="reading it renews the history")
    if not before:
        view.register_hook(lambda gradient: seen.append(gradient.clone()))
    later = view * 3

    earlier.backward(weights(earlier), retain_graph=True)
    expected = [2 * weights(earlier)] if before else []
    same(seen, expected, why=f"{earlier.shape} elements were computed before the write")
    later.backward(weights(later), retain_graph=True)
    if written != "view" or not before:  # else the old elements are on the way of the new ones
        expected += [] if before else [3 * weights(later)]
        same(seen, expected, why="this was computed after the write")


@claim(cites=["torch_tensor/retain-grad-fills-grad"], since="2.3", needs=["in-place", "views"])
@given(case=view_chains(count=2, writable=True), written=st.sampled_from(["base", "view", "another view"]))
def spec_a_view_and_its_base_retain_the_gradients_by_their_latest_elements(world, case, written):
    """If base and view retain their gradients and their memory is written, each .grad is the gradient by the elements
    that it has then."""
    v, (chain, other) = case
    x = world.leaf(v)
    y = x * 1
    view = taken(y, chain)
    view.retain_grad()
    y.retain_grad()

    target, positions = {
        "base": (y, range(x.numel())),
        "view": (view, shown(x, chain)[1]),
        "another view": (taken(y, other), shown(x, other)[1]),
    }[written]
    target.mul_(3)
    same([view.grad_fn is None, view.retains_grad, y.retains_grad], [False, True, True], why="they were told to")
    (view * weights(view.detach())).sum().backward()

    flowing = flowing_into(x, [view], [chain])
    same(view.grad, weights(view.detach()), why="this is what flows into the view")
    same(y.grad, like(y, flowing), why="the view shows these elements of the base")
    behind = [3 * f if at in set(positions) else f for at, f in enumerate(flowing)]
    same(x.grad, like(x, behind), why=f"these elements were tripled: {list(positions)}")


@claim(
    cites=["torch_tensor/copy-takes-what-broadcasts-in-any-dtype"],
    since="2.0",
    needs=["float16", "bfloat16", "float64", "in-place", "views"],
)
@given(
    v=values(shapes=((3, 2), (2, 3), (4, 1), (24,))),
    dtype=st.sampled_from(["float16", "bfloat16", "float32", "float64"]),
    view=st.booleans(),
    one=st.booleans(),
)
def spec_copy_takes_a_source_of_another_dtype_that_broadcasts(world, v, dtype, view, one):
    """copy_() writes a source of any dtype, repeated where it is smaller, as numbers of the dtype that is written. The
    gradient by the source is summed, in its own dtype."""
    x = world.leaf(v)
    y = x[None] * 1
    s = (torch.arange(1 if one else x.size(-1), device=x.device) % 4 - 1).to(getattr(torch, dtype)).requires_grad_()

    (y[0] if view else y).copy_(s)

    row = s.detach().to(x.dtype).expand(x.shape)
    same(y.detach()[0], row, why=f"a row of {dtype} was copied into {x.dtype}")
    (y.sum() * 2).backward()
    same(s.grad, torch.full_like(s, 2 * x.numel() // s.numel()).detach(), why="each element was written so often")
    same(x.grad, torch.zeros_like(x).detach(), why="all was overwritten")


# Ways to assign to elements of a tensor of 3 rows and 2 columns, with the shape of what is assigned, and the positions
# that it goes to, row by row.
ASSIGNED = {
    "y[1] = s": (lambda y, s: y.__setitem__(1, s), (2,), [2, 3]),
    "y[-1, 1] = s": (lambda y, s: y.__setitem__((-1, 1), s), (), [5]),
    "y[:] = s": (lambda y, s: y.__setitem__(slice(None), s), (3, 2), [0, 1, 2, 3, 4, 5]),
    "y[...] = s": (lambda y, s: y.__setitem__(..., s), (3, 2), [0, 1, 2, 3, 4, 5]),
    "y[1:, 0] = s": (lambda y, s: y.__setitem__((slice(1, None), 0), s), (2,), [2, 4]),
    "y[::2] = s": (lambda y, s: y.__setitem__(slice(None, None, 2), s), (2, 2), [0, 1, 4, 5]),
    "y[..., None, 1] = s": (lambda y, s: y.__setitem__((..., None, 1), s), (3, 1), [1, 3, 5]),
    "y[[2, 0]] = s": (lambda y, s: y.__setitem__([2, 0], s), (2, 2), [4, 5, 0, 1]),
    "y[[2, 0], 1] = s": (lambda y, s: y.__setitem__(([2, 0], 1), s), (2,), [5, 1]),
    "y[[2, 0], [0, 1]] = s": (lambda y, s: y.__setitem__(([2, 0], [0, 1]), s), (2,), [4, 1]),
    "y[:, [1]] = s": (lambda y, s: y.__setitem__((slice(None), [1]), s), (3, 1), [1, 3, 5]),
    "y[torch.tensor(1)] = s": (lambda y, s: y.__setitem__(torch.tensor(1), s), (2,), [2, 3]),
    "y[torch.tensor([[1]])] = s": (lambda y, s: y.__setitem__(torch.tensor([[1]]), s), (1, 1, 2), [2, 3]),
    "y[[True, False, True]] = s": (lambda y, s: y.__setitem__([True, False, True], s), (2, 2), [0, 1, 4, 5]),
    "y[torch.arange(6).view(3, 2) % 4 == 1] = s": (
        lambda y, s: y.__setitem__((torch.arange(6).view(3, 2) % 4 == 1).to(y.device), s),
        (2,),
        [1, 5],
    ),
    "y.index_put_((torch.tensor([1]),), s)": (
        lambda y, s: y.index_put_((torch.tensor([1], device=y.device),), s),
        (1, 2),
        [2, 3],
    ),
    "y.index_copy_(0, torch.tensor([2, 1]), s.expand(2, 2))": (
        lambda y, s: y.index_copy_(0, torch.tensor([2, 1], device=y.device), s.expand(2, 2)),
        (2, 2),
        [4, 5, 2, 3],
    ),
    "y.t()[0] = s": (lambda y, s: y.t().__setitem__(0, s), (3,), [0, 2, 4]),
    "y.view(-1)[4:] = s": (lambda y, s: y.view(-1).__setitem__(slice(4, None), s), (2,), [4, 5]),
    "y[1][0] = s": (lambda y, s: y[1].__setitem__(0, s), (), [2]),
}


@claim(
    cites=["tensor_views/assignment-by-index-is-in-place", "tensor_views/edits-of-views-show-in-the-base"],
    needs=["in-place", "views"],
)
@given(
    v=values(shapes=((3, 2),), layouts=("contiguous", "offset")),
    ways=some_of(ASSIGNED, 3),
    one_for_all=st.booleans(),
    constant=st.booleans(),
    to_a_view=st.booleans(),
)
def spec_an_assignment_by_an_index_is_a_write_in_place(world, v, ways, one_for_all, constant, to_a_view):
    """An assignment to elements, by any kind of index, writes into the tensor itself: what was assigned gets the
    gradient there, summed if one number stands for all, and the elements that were overwritten get none."""
    x = world.leaf(v)
    y = x.detach().clone() if constant else x * 1
    seen, sources, owner = y.view(-1), [], [None] * 6
    numbers = row_of(x)

    for way in ways:
        assign, shape, positions = ASSIGNED[way]
        s = torch.full(() if one_for_all else shape, 7, dtype=x.dtype, device=x.device)
        s = (s + weights(s)).requires_grad_()
        assign(y[None][0] if to_a_view else y, s)
        sources.append(s)
        for i, at in enumerate(positions):
            owner[at] = (s, 0 if one_for_all else i)
            numbers[at] = row_of(s)[owner[at][1]]
        same(
            [y.detach(), seen.detach()],
            [like(y, numbers), like(seen, numbers)],
            why=f"{ways[: len(sources)]} were carried out",
        )
    same([y.requires_grad, seen.requires_grad, y.is_leaf], [True, True, False], why="what was assigned requires grad")
    (seen * weights(seen.detach())).sum().backward()

    flowing = row_of(weights(x).reshape(-1))
    kept = [0 if own else g for own, g in zip(owner, flowing)]
    same(x.grad, None if constant else like(x, kept), why=f"of {ways}")
    for s, way in zip(sources, ways):
        expected = [0] * s.numel()
        for own, g in zip(owner, flowing):
            if own and own[0] is s:
                expected[own[1]] += g
        same(s.grad, like(s, expected), why=f"{way} is one of {ways}")


# Changes in place of the shape, for a tensor of 2 rows and 3 columns, and the same as an operation that gives a view.
RESHAPED_IN_PLACE = {
    "t_()": (lambda y: y.t_(), lambda y: y.t()),
    "transpose_(0, -1)": (lambda y: y.transpose_(0, -1), lambda y: y.transpose(0, -1)),
    "swapaxes_(0, 1)": (lambda y: y.swapaxes_(0, 1), lambda y: y.transpose(0, 1)),
    "swapdims_(-1, 0)": (lambda y: y.swapdims_(-1, 0), lambda y: y.transpose(0, 1)),
    "unsqueeze_(1)": (lambda y: y.unsqueeze_(1), lambda y: y[:, None]),
    "unsqueeze_(0).squeeze_(0)": (lambda y: y.unsqueeze_(0).squeeze_(0), lambda y: y),
    "squeeze_(0)": (lambda y: y.squeeze_(0), lambda y: y[0] if y.size(0) == 1 else y),
    "as_strided_((2,), (1,))": (lambda y: y.as_strided_((2,), (1,)), lambda y: y.reshape(-1)[:2]),
}


@claim(observed=True, needs=["in-place", "views"])
@given(
    v=values(shapes=((2, 3), (1, 3), (2, 2)), layouts=("contiguous",)),
    way=st.sampled_from(list(RESHAPED_IN_PLACE)),
    view=st.booleans(),
    write=st.booleans(),
    seen_before=st.booleans(),
)
def spec_a_change_of_shape_in_place_is_recorded(world, v, way, view, write, seen_before):
    """Dimensions of a result, or of a view of one, can be exchanged, added and removed in place: it is the same tensor
    in another shape, with the gradients of that, and it can be written as before. Its base keeps its own shape."""
    x = world.leaf(v)
    base = x[None] * 1 if view else x * 1
    y = base[0] if view else base
    rows = y[:1] if seen_before else None
    change, shape_of = RESHAPED_IN_PLACE[way]
    positions = shape_of(torch.arange(x.numel()).reshape(x.shape))

    same([change(y) is y, y._is_view(), y._version], [True, view, way.count("_(")], why="it is the same tensor")
    if write:
        y.mul_(2)

    factor = 2 if write else 1
    same(y.detach(), factor * x.detach().reshape(-1)[positions], why=f"its shape was changed by {way}")
    y.backward(weights(y.detach()), retain_graph=True)
    expected = torch.zeros_like(x).detach().reshape(-1)
    expected[positions.reshape(-1)] = factor * weights(y.detach()).reshape(-1)
    same(x.grad, expected.reshape(x.shape), why=f"its shape was changed by {way}")
    if view:
        same(list(base.shape), [1, *x.shape], why="only the shape of the view was changed")
    if seen_before and view:
        x.grad = None
        rows.sum().backward()
        expected = torch.zeros_like(x).detach()
        expected[:1] = 1
        if write:
            expected.reshape(-1)[positions[torch.isin(positions, torch.arange(x.size(1)))]] = 2
        same(x.grad, expected, why="the first row was seen before")


@claim(observed=True, needs=["in-place", "views"])
@given(case=view_chains(count=2, writable=True), kind=st.sampled_from(["constant", "source", "refused"]))
def spec_a_view_that_is_a_leaf_ceases_to_be_one_if_its_base_is_written_with_a_gradient(world, case, kind):
    """If a view of a constant was made a leaf, writes of constants to the base leave it one. If a tensor that requires
    grad is written, the view becomes a result of that. The leaf itself takes no write."""
    v, (chain, other) = case
    x = world.constant(v).clone()
    leaf = taken(x, chain).requires_grad_()
    source = source_for(x, 1)

    if kind == "refused":
        with raises(RuntimeError, "leaf Variable that requires grad", why="it is a leaf"):
            leaf.mul_(2)
        same([leaf.detach(), leaf._version], [taken(world.constant(v), chain), 0], why="the write was refused")
    elif kind == "constant":
        taken(x, other).mul_(2)
        same([leaf.is_leaf, leaf.requires_grad, x.requires_grad], [True, True, False], why="2 doesn't require grad")
    else:
        x.copy_(source)
        same([leaf.is_leaf, leaf.requires_grad, x.requires_grad], [False, True, True], why="x is the source now")
    leaf.backward(weights(leaf.detach()))
    if kind == "source":
        same(source.grad, like(x, flowing_into(x, [leaf], [chain])), why="the view shows the source")
    else:
        same(leaf.grad, weights(leaf.detach()), why="it is a leaf")
