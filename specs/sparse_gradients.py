"""Sparse gradients: a .grad that holds some elements only, of dense leaves and of sparse ones."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import claim, raises, same, values

# Ways to look up rows of a table, with a gradient that is sparse or not.
LOOKUPS = {
    "torch.nn.functional.embedding": lambda table, rows, sparse: torch.nn.functional.embedding(
        rows, table, sparse=sparse
    ),
    "torch.nn.Embedding": lambda table, rows, sparse: embedding_of(table, sparse=sparse)(rows),
    "torch.nn.functional.embedding_bag": lambda table, rows, sparse: torch.nn.functional.embedding_bag(
        rows, table, rows.new_zeros(1), mode="sum", sparse=sparse
    ),
    "torch.gather": lambda table, rows, sparse: torch.gather(
        table, 0, rows[:, None].expand(-1, table.shape[1]), sparse_grad=sparse
    ),
}

# Ways to look up rows that leave out one of them.
PADDED_LOOKUPS = {
    "torch.nn.functional.embedding": lambda table, rows, sparse, padding: torch.nn.functional.embedding(
        rows, table, padding_idx=padding, sparse=sparse
    ),
    "torch.nn.Embedding": lambda table, rows, sparse, padding: embedding_of(table, padding_idx=padding, sparse=sparse)(
        rows
    ),
    "torch.nn.functional.embedding_bag": lambda table, rows, sparse, padding: torch.nn.functional.embedding_bag(
        rows, table, rows.new_zeros(1), mode="sum", padding_idx=padding, sparse=sparse
    ),
}

# Functions of a sparse matrix a whose sum grows with each element of a so many times as fast.
OF_SPARSE = {
    "torch.sparse.mm(a, ones)": (lambda a: torch.sparse.mm(a, dense_ones(a, (a.shape[1], 2))), 2),
    "torch.sparse.addmm(ones, a, ones)": (
        lambda a: torch.sparse.addmm(dense_ones(a, (a.shape[0], 3)), a, dense_ones(a, (a.shape[1], 3))),
        3,
    ),
    "a.to_dense() * 2": (lambda a: a.to_dense() * 2, 2),
    "(a * 3).to_dense()": (lambda a: (a * 3).to_dense(), 3),
    "(a + a).to_dense()": (lambda a: (a + a).to_dense(), 2),
    "(-a).to_dense()": (lambda a: (-a).to_dense(), -1),
    "a.clone().to_dense()": (lambda a: a.clone().to_dense(), 1),
    "a.t().to_dense()": (lambda a: a.t().to_dense(), 1),
}
OF_COO = {
    "torch.sparse.sum(a)": (lambda a: torch.sparse.sum(a), 1),
    "torch.sparse.sum(a, 0).to_dense()": (lambda a: torch.sparse.sum(a, 0).to_dense(), 1),
    "a.coalesce().values()": (lambda a: a.coalesce().values(), 1),
}

# Functions of a sparse matrix whose gradients have all elements.
WITH_DENSE_GRADIENT = {
    "a @ ones": (lambda a: a @ dense_ones(a, (a.shape[1], 2)), 2),
    "a.mv(ones)": (lambda a: a.mv(dense_ones(a, (a.shape[1],))), 1),
    "a.sum()": (lambda a: a.sum(), 1),
}

# Layouts with what makes them of a dense matrix.
SPARSE = {
    torch.sparse_coo: lambda x: x.to_sparse(),
    torch.sparse_csr: lambda x: x.to_sparse_csr(),
    torch.sparse_csc: lambda x: x.to_sparse_csc(),
}

TABLES = values(shapes=((1, 1), (2, 3), (3, 2), (4, 1)))
MATRICES = values(shapes=((2, 3), (3, 2), (1, 3), (2, 1), (2, 2)))
ROWS = st.binary(max_size=5)  # numbers of rows, in a single draw


def embedding_of(table, **options):
    """The module whose weight is the table."""
    module = torch.nn.Embedding(*table.shape, _weight=table.detach(), **options)
    del module.weight
    module.weight = table
    return module


def dense_ones(a, shape):
    """A dense tensor of ones that goes with a."""
    return torch.ones(shape, dtype=a.dtype, device=a.device)


def numbers_of(rows, table):
    """The rows that there are in the table, as a tensor."""
    return torch.tensor([row % len(table) for row in rows], dtype=torch.int64, device=table.device)


def counts(numbers, table):
    """A tensor like the table that says at each place how often its row is named."""
    result = torch.zeros_like(table).detach()
    for number in numbers.tolist():
        result[number] += 1
    return result


@claim(cites=["torch_nn/embedding-can-give-sparse-gradients"], needs=["sparse"])
@given(v=TABLES, rows=ROWS, lookup=st.sampled_from(list(LOOKUPS)), sparse=st.booleans(), factor=st.integers(-2, 3))
def spec_looking_up_rows_can_give_a_sparse_gradient(world, v, rows, lookup, sparse, factor):
    """If rows of a table are looked up with sparse=True, or sparse_grad=True, the table's .grad is a sparse tensor
    with the numbers that it has without: for each row the sum over all the times that the row was looked up."""
    table = world.leaf(v)
    numbers = numbers_of(rows, table)

    (LOOKUPS[lookup](table, numbers, sparse) * factor).sum().backward()

    same(table.grad.layout, torch.sparse_coo if sparse else torch.strided, why=f"{lookup}, sparse is {sparse}")
    same(table.grad.to_dense(), factor * counts(numbers, table), why=f"the rows {numbers.tolist()} were looked up")
    same([table.layout, table.is_leaf, table.grad.requires_grad], [torch.strided, True, False], why="it is a .grad")


@claim(cites=["torch_nn/padding-row-gets-no-gradient"], needs=["sparse"])
@given(
    v=TABLES,
    rows=ROWS,
    lookup=st.sampled_from(list(PADDED_LOOKUPS)),
    sparse=st.booleans(),
    padding=st.integers(0, 3),
    negative=st.booleans(),
)
def spec_the_padding_row_gets_no_gradient(world, v, rows, lookup, sparse, padding, negative):
    """The row at padding_idx, which may be counted from the end, gets a gradient of zeros, however often it is looked
    up, be the gradient sparse or not."""
    table = world.leaf(v)
    numbers = numbers_of(rows, table)
    padding %= len(table)

    (PADDED_LOOKUPS[lookup](table, numbers, sparse, padding - len(table) * negative) * 2).sum().backward()

    expected = 2 * counts(numbers, table)
    expected[padding] = 0
    same(table.grad.to_dense(), expected, why=f"row {padding} is the padding: {lookup}, sparse is {sparse}")


@claim(
    cites=["torch_nn/embedding-can-give-sparse-gradients", "torch_autograd/backward-accumulates"],
    needs=["sparse"],
)
@given(
    v=TABLES,
    start=st.sampled_from([None, "sparse", "dense"]),
    passes=st.lists(
        st.lists(st.tuples(st.booleans(), ROWS), min_size=1, max_size=2),
        min_size=1,
        max_size=3,
    ),
    create_graph=st.booleans(),
)
def spec_sparse_and_dense_gradients_add_up(world, v, start, passes, create_graph):
    """Sparse and dense gradients of one leaf add up, in one backward and over several, with create_graph too.
    Their sum is sparse as long as all of them are."""
    table = world.leaf(v)
    if start is not None:
        everywhere = torch.ones_like(table).detach()
        table.grad = everywhere if start == "dense" else everywhere.to_sparse(1)
    expected = torch.zeros_like(table).detach() + (start is not None)
    dense = start == "dense"

    for uses in passes:
        loss = 0
        # With create_graph a sparse gradient must not come first: that is the claim behind this one.
        for sparse, rows in sorted(uses, reverse=True) if create_graph else uses:
            numbers = numbers_of(rows, table)
            loss = loss + (torch.nn.functional.embedding(numbers, table, sparse=sparse) * 1).sum()
            expected = expected + counts(numbers, table)
            dense = dense or not sparse
        loss.backward(create_graph=create_graph)

        same(table.grad.layout, torch.strided if dense else torch.sparse_coo, why=f"{passes}, .grad was {start}")
        same(table.grad.to_dense().detach(), expected, why=f"all of {passes} so far add up, and .grad was {start}")


@claim(cites=["torch_nn/embedding-can-give-sparse-gradients"], observed=True, since="2.0", needs=["sparse"])
@given(v=TABLES, dense_first=st.booleans(), create_graph=st.booleans(), way=st.sampled_from(["backward", "grad"]))
def spec_with_create_graph_a_sparse_gradient_must_not_come_first(world, v, dense_first, create_graph, way):
    """With create_graph=True backward, and torch.autograd.grad, of a sum in which a dense use of a leaf was recorded
    before a sparse one is an error, although it isn't without, or the other way round."""
    table = world.leaf(v)
    rows = torch.zeros(2, dtype=torch.int64, device=table.device)

    def dense():
        return (table * 2).sum()

    def sparse():
        return (torch.nn.functional.embedding(rows, table, sparse=True) * 3).sum()

    def differentiated():
        loss = dense() + sparse() if dense_first else sparse() + dense()
        if way == "grad":
            return torch.autograd.grad(loss, [table], create_graph=create_graph)[0]
        loss.backward(create_graph=create_graph)
        return table.grad

    if dense_first and create_graph:
        with raises(RuntimeError, "add(sparse, dense)", why="the gradient of the later use comes first"):
            differentiated()
        same(table.grad, None, why="it failed before")
    else:
        expected = torch.full_like(table, 2).detach() + 3 * counts(rows, table)
        same(differentiated().detach(), expected, why="the first row was looked up twice")


@claim(observed=True, needs=["sparse"])
@given(
    v=TABLES,
    start=st.sampled_from([None, "sparse", "dense"]),
    passes=st.lists(st.tuples(st.booleans(), ROWS), min_size=1, max_size=3),
    create_graph=st.booleans(),
)
def spec_sparse_gradients_are_added_in_place_unless_grad_becomes_dense(world, v, start, passes, create_graph):
    """Without create_graph a later gradient, sparse or dense, is added to .grad in place, except a dense one to a
    sparse .grad: then, and with create_graph, .grad is a new tensor and the old one stays as it was."""
    table = world.leaf(v)
    if start is not None:
        everywhere = torch.ones_like(table).detach()
        table.grad = everywhere if start == "dense" else everywhere.to_sparse(1)

    for sparse, rows in passes:
        old = table.grad
        before = None if old is None else old.to_dense().clone()
        numbers = numbers_of(rows, table)
        loss = (torch.nn.functional.embedding(numbers, table, sparse=sparse) * 1).sum()
        loss.backward(create_graph=create_graph)

        if old is not None:
            kept = not create_graph and (sparse or old.layout == torch.strided)
            same(table.grad is old, kept, why=f"sparse is {sparse}, and .grad was {old.layout}")
            after = before + counts(numbers, table) if kept else before
            same(old.to_dense(), after, why=f"sparse is {sparse}, and .grad was {old.layout}")


@claim(
    cites=[
        "torch_sparse/mm-gives-a-sparse-gradient",
        "torch_sparse/gradients-are-masked",
        "torch_tensor/grad-accumulates",
    ],
    needs=["sparse"],
)
@given(v=MATRICES, function=st.sampled_from([*OF_SPARSE, *OF_COO]), passes=st.integers(1, 2))
def spec_a_sparse_leaf_gets_a_sparse_gradient(world, v, function, passes):
    """A sparse tensor can be a leaf that requires grad. Its .grad is sparse as well, and has a derivative for each of
    the leaf's own elements and nothing elsewhere; gradients add up."""
    x = world.constant(v)
    a = x.to_sparse().requires_grad_()
    compute, derivative = {**OF_SPARSE, **OF_COO}[function]
    same([a.is_leaf, a.grad_fn, a.grad], [True, None, None], why="it was not made of tensors that require grad")

    for _ in range(passes):
        compute(a).sum().backward()

    same([a.layout, a.grad.layout], [torch.sparse_coo] * 2, why=f"it is {function}")
    expected = passes * derivative * (x != 0).to(x.dtype)
    same(a.grad.to_dense(), expected, why=f"{x.tolist()} has no elements where it is zero")


@claim(
    cites=["torch_sparse/mm-gives-a-sparse-gradient", "torch_sparse/gradients-are-masked"],
    since="2.0",
    needs=["sparse-csr"],
)
@given(v=MATRICES, function=st.sampled_from(list(OF_SPARSE)), passes=st.integers(1, 2))
def spec_a_leaf_of_compressed_rows_gets_a_gradient_of_compressed_rows(world, v, function, passes):
    """The .grad of a leaf of compressed sparse rows has this layout, too, and a derivative for each of the
    leaf's own elements and nothing elsewhere."""
    x = world.constant(v)
    a = x.to_sparse_csr().requires_grad_()
    compute, derivative = OF_SPARSE[function]

    for _ in range(passes):
        compute(a).sum().backward()

    same([a.layout, a.grad.layout], [torch.sparse_csr] * 2, why=f"it is {function}")
    expected = passes * derivative * (x != 0).to(x.dtype)
    same(a.grad.to_dense(), expected, why=f"{x.tolist()} has no elements where it is zero")


@claim(observed=True, since="2.0", needs=["sparse", "sparse-csr"])
@given(v=MATRICES, function=st.sampled_from(list(WITH_DENSE_GRADIENT)), rows=st.booleans())
def spec_products_outside_of_torch_sparse_give_a_sparse_leaf_a_dense_gradient(world, v, function, rows):
    """The product a @ b with a dense b, a.mv(b) and a.sum() give a sparse leaf a a dense .grad: with derivatives at
    places where the leaf has no elements, too."""
    x = world.constant(v)
    a = (x.to_sparse_csr() if rows else x.to_sparse()).requires_grad_()
    compute, derivative = WITH_DENSE_GRADIENT[function]

    compute(a).sum().backward()

    same(a.grad, torch.full_like(x, derivative), why=f"it is {function}")


@claim(cites=["torch_sparse/sparse-times-sparse-has-no-backward"], needs=["sparse"])
@given(
    v=MATRICES, w=values(shapes=((3, 2), (2, 3), (1, 2), (3, 1), (2, 2))), required=st.sampled_from(["ab", "a", "b"])
)
def spec_a_product_of_sparse_tensors_can_be_differentiated(world, v, w, required):
    """torch.sparse.mm of two tensors in coordinate format has gradients for both. They are sparse, and have a
    derivative for each of the factor's own elements and nothing elsewhere."""
    x, y = world.constant(v), world.constant(w)
    y = y.to(x.dtype)[[row % len(y) for row in range(x.shape[1])]]  # as many rows as x has columns
    a, b = x.to_sparse().requires_grad_("a" in required), y.to_sparse().requires_grad_("b" in required)

    torch.sparse.mm(a, b).to_dense().sum().backward()

    expected = torch.zeros_like(x) + y.sum(1)  # of sum(x @ y) by each element of x
    same(a.grad is None, "a" not in required, why=f"{required} required grad")
    if a.requires_grad:
        same(a.grad.layout, torch.sparse_coo, why="the factor is sparse")
        same(a.grad.to_dense(), expected * (x != 0), why="only the elements of a have a gradient")
    expected = torch.zeros_like(y) + x.sum(0)[:, None]
    same(b.grad is None, "b" not in required, why=f"{required} required grad")
    if b.requires_grad:
        same(b.grad.layout, torch.sparse_coo, why="the factor is sparse")
        same(b.grad.to_dense(), expected * (y != 0), why="only the elements of b have a gradient")


@claim(cites=["torch_sparse/sum-gives-a-coalesced-gradient"], needs=["sparse"])
@given(v=MATRICES, over=st.sampled_from([None, (0, 1), (0,), (1,)]))
def spec_the_gradient_of_a_sparse_sum_is_coalesced(world, v, over):
    """The gradient of torch.sparse.sum is coalesced if no dimensions are named."""
    a = world.constant(v).to_sparse().requires_grad_()

    total = torch.sparse.sum(a) if over is None else torch.sparse.sum(a, over)
    (total.to_dense() if total.is_sparse else total).sum().backward()

    if over is None:
        same(a.grad.is_coalesced(), True, why="the sum went over all that there is")
    same(a.grad.to_dense(), (a.detach().to_dense() != 0).to(a.dtype), why="each element counts once")


@claim(cites=["torch_tensor/results-that-require-grad-are-not-leaves"], needs=["sparse"])
@given(v=MATRICES, duplicates=st.booleans(), factor=st.integers(-2, 3))
def spec_gradients_flow_from_sparse_tensors_to_what_they_were_made_of(world, v, duplicates, factor):
    """A sparse tensor that was made of a dense leaf, by to_sparse() or of its values, is no leaf. The dense leaf gets
    a dense gradient: zeros where it had no element in the sparse one, and for each value that of its place."""
    x = world.leaf(v)
    a = x.to_sparse()
    numbers = torch.arange(1, x.numel() + 1, dtype=x.dtype, device=x.device)
    same([a.requires_grad, a.is_leaf], [True, False], why="it was made of x")
    (a.to_dense() * factor * numbers.view(x.shape)).sum().backward()
    expected = factor * numbers.view(x.shape) * (x != 0)
    same(x.grad, expected.detach(), why="where x is zero the sparse tensor has no element")

    y = world.constant(v).reshape(-1).requires_grad_()
    places = torch.arange(y.numel(), device=y.device)
    places = places // 2 if duplicates else places  # two values for each place
    b = torch.sparse_coo_tensor(places[None], y, (y.numel(),))
    same([b.requires_grad, b.is_leaf], [True, False], why="it was made of y")
    (b.to_dense() * factor * numbers).sum().backward()
    same(y.grad, factor * numbers[places], why=f"the values stand at {places.tolist()}")


@claim(observed=True, needs=["sparse", "sparse-csr"])
@given(
    v=MATRICES,
    leaf=st.sampled_from([torch.strided, torch.sparse_coo]),
    grad=st.sampled_from([torch.strided, torch.sparse_coo, torch.sparse_csr, torch.sparse_csc]),
    kept=st.booleans(),
)
def spec_grad_of_a_dense_leaf_may_be_sparse_but_not_the_reverse(world, v, leaf, grad, kept):
    """.grad of a dense leaf can be set to a sparse tensor in coordinate format. A tensor in compressed format is
    refused by dense and sparse leaves, and a dense one by sparse leaves; then .grad stays as it was."""
    x = world.constant(v)
    ones = torch.ones_like(x)
    x = (x if leaf == torch.strided else x.to_sparse()).requires_grad_()
    old = x.grad = ones.to_sparse() if kept else None
    new = ones if grad == torch.strided else SPARSE[grad](ones)

    if grad == torch.sparse_coo or grad == leaf:
        x.grad = new
        same(x.grad is new, True, why=f"it is {grad}, and the leaf is {leaf}")
    else:
        with raises(RuntimeError, "type", why=f"it is {grad}, and the leaf is {leaf}"):
            x.grad = new
        same(x.grad is old, True, why="it was refused")
