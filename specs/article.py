"""The article's listing: a frozen layer in evaluation mode, and the one gradient that comes out of it."""

import contextlib
import io

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import claim, raises, same, values, warns


@claim(
    cites=[
        "article/output-of-listing",
        "article/frozen-module-still-passes-input-grad",
        "article/unused-branch-has-none",
        "article/nonleaf-grads-print-none",
        "article/frozen-weight-grad-none",
    ],
    needs=["random"],
)
def spec_the_listing_gives_a_its_gradient_and_nothing_else(world):
    """In the article's listing a.grad becomes [4, 4]; the .grad of b, c, d and of the frozen weight is None,
    and reading that of c or d warns."""
    layer = torch.nn.Linear(2, 2, device=world.device)
    layer.eval()
    with torch.no_grad():
        for p in layer.parameters():
            p.fill_(1)
    layer.requires_grad_(False)
    a = torch.tensor([1.0, 2.0], device=world.device, requires_grad=True)
    b = torch.tensor([13.0, 32.0], device=world.device, requires_grad=True)
    c = layer(a)
    c2 = layer(b)
    d = c * 2
    same((c, c2, d), (torch.full_like(a, 4), torch.full_like(a, 46), torch.full_like(a, 8)), why="it is 1 + the sum")
    d.sum().backward()

    same(a.grad, torch.full_like(a, 4), why="two outputs, each with the weight 1 and doubled")
    same(b.grad, None, why="c2 takes no part in the loss")
    same(layer.weight.grad, None, why="the layer is frozen")
    same(layer.bias.grad, None, why="the layer is frozen")
    with warns(UserWarning, "not a leaf", why="c was computed"):
        same(c.grad, None, why="c was computed")
    with warns(UserWarning, "not a leaf", why="d was computed"):
        same(d.grad, None, why="d was computed")


INPUTS = ((2,), (1,), (3,), (2, 3), (3, 1), (0, 2), (2, 1, 2))


@claim(
    cites=[
        "article/a-grad-is-dloss-da",
        "article/eval-sets-evaluation-mode",
        "article/frozen-module-still-passes-input-grad",
        "article/unused-branch-has-none",
        "article/frozen-weight-grad-none",
    ],
    needs=["random"],
)
@given(
    v=values(shapes=INPUTS),
    features=st.sampled_from((2, 1, 3)),
    fill=st.integers(-3, 3),
    factor=st.integers(-3, 3),
    earlier=st.tuples(*[st.one_of(st.none(), st.integers(-3, 3))] * 2),
)
def spec_the_listing_for_any_numbers(world, v, features, fill, factor, earlier):
    """However many features the layer has and whatever it is filled with, a.grad is the number of outputs
    times the filling times the factor behind the layer, added to an earlier a.grad; b.grad and the
    parameters' gradients stay what they were."""
    a, b = world.leaf(v), world.leaf(v)
    layer = torch.nn.Linear(a.shape[-1], features, device=world.device, dtype=a.dtype)
    of_a, of_others = (None if number is None else float(number) for number in earlier)
    a.grad = None if of_a is None else torch.full_like(a, of_a)
    for tensor in (b, layer.weight, layer.bias):
        tensor.grad = None if of_others is None else torch.full_like(tensor, of_others)

    same(layer.eval().training, False, why="eval() puts the layer in evaluation mode")
    with torch.no_grad():
        for p in layer.parameters():
            p.fill_(fill)
    layer.requires_grad_(False)
    c = layer(a)
    c2 = layer(b)
    d = c * factor
    d.sum().backward()

    same(c, (fill * a.detach().sum(-1, keepdim=True) + fill).expand_as(c), why="all weights and biases are alike")
    same(a.grad, torch.full_like(a, features * fill * factor + (of_a or 0)), why="each output depends on each input")
    for name, tensor in (("b", b), ("layer.weight", layer.weight), ("layer.bias", layer.bias)):
        before = None if of_others is None else torch.full_like(tensor, of_others)
        same(tensor.grad, before, why=f"backward doesn't reach {name}")

    c2.sum().backward()
    same(b.grad, torch.full_like(b, features * fill + (of_others or 0)), why="this backward is from c2")


@claim(cites=["article/no-grad-disables-gradient-computation", "article/parameters-iterates-all"], needs=["random"])
@given(sizes=st.tuples(st.integers(1, 3), st.integers(1, 3)), fill=st.integers(-3, 3), bias=st.booleans())
def spec_the_layer_can_be_filled_under_no_grad_only(world, sizes, fill, bias):
    """Under no_grad a loop over parameters() fills all of a layer in place, and leaves it as learnable as
    before; outside of no_grad filling the first parameter raises an error and changes nothing."""
    layer = torch.nn.Linear(*sizes, bias=bias, device=world.device)
    filled = [layer.weight, layer.bias] if bias else [layer.weight]
    before = [p.detach().clone() for p in filled]

    with raises(RuntimeError, "a leaf Variable that requires grad", why="in grad mode it would be recorded"):
        for p in layer.parameters():
            p.fill_(fill)
    same(filled, before, why="the filling was refused")

    with torch.no_grad():
        for p in layer.parameters():
            p.fill_(fill)
    same(filled, [torch.full_like(p, fill) for p in before], why="no_grad allows it")
    same([p.is_leaf and p.requires_grad for p in filled], [True for _ in filled], why="filling wasn't recorded")
    same(torch.is_grad_enabled(), True, why="the block was left")


@claim(cites=["article/user-created-are-leaves", "article/computed-are-non-leaves"], needs=["random"])
@given(
    v=values(shapes=INPUTS),
    required=st.booleans(),
    frozen=st.booleans(),
    training=st.booleans(),
    factor=st.integers(-3, 3),
)
def spec_which_tensors_of_the_listing_are_leaves(world, v, required, frozen, training, factor):
    """The input is a leaf, whether it requires grad or not. The output of the layer and what is computed
    from it are not leaves if the input or the layer requires grad; if neither does, they are."""
    a = world.constant(v).requires_grad_(required)
    layer = torch.nn.Linear(a.shape[-1], 2, device=world.device, dtype=a.dtype)
    layer.requires_grad_(not frozen).train(training)

    c = layer(a)
    d = c * factor

    same((a.is_leaf, a.grad_fn), (True, None), why="the user made it")
    for name, tensor in (("c", c), ("d", d)):
        recorded = required or not frozen
        same(tensor.requires_grad, recorded, why=f"{name} was computed from the input and the layer")
        same(tensor.is_leaf, not recorded, why=f"{name} was computed from the input and the layer")
        same(tensor.grad_fn is None, not recorded, why=f"{name} was computed from the input and the layer")


@claim(cites=["article/c-and-d-come-from-module"], needs=["random"])
@given(v=values(shapes=INPUTS), factor=st.integers(-3, 3), k=st.integers(-2, 2))
def spec_the_factor_is_outside_the_layer(world, v, factor, k):
    """Of d = c * 2 the layer's part is c alone: differentiated by c, d has the factor, whatever the layer
    holds; and where c is cut off from the layer, backward from d reaches neither parameters nor input."""
    a = world.leaf(v)
    layer = torch.nn.Linear(a.shape[-1], 2, device=world.device, dtype=a.dtype)
    with torch.no_grad():
        for p in layer.parameters():
            p.fill_(k)

    c = layer(a)
    (by_c,) = torch.autograd.grad((c * factor).sum(), c, retain_graph=True)
    same(by_c, torch.full_like(c, factor), why="c * factor is all that lies between c and d")

    cut = c.detach().requires_grad_()
    (cut * factor).sum().backward()
    same(cut.grad, torch.full_like(c, factor), why="c * factor is all that lies between c and d")
    same((a.grad, layer.weight.grad, layer.bias.grad), (None, None, None), why="they lie behind c")

    (c * factor).sum().backward()
    times = c.numel() // 2 * factor  # each of the two outputs is computed so often
    same(layer.bias.grad, torch.full_like(layer.bias, times), why="through c backward reaches the layer")
    same(a.grad, torch.full_like(a, 2 * k * factor), why="and the input behind it")


@claim(cites=["article/a-grad-measures-influence", "article/a-grad-is-dloss-da"], needs=["random"])
@given(v=values(shapes=INPUTS), step=st.integers(-3, 3), place=st.integers(0, 5), k=st.integers(-3, 3))
def spec_a_grad_foretells_how_the_loss_changes(world, v, step, place, k):
    """A change of one element of a changes the listing's loss by the change times that element of a.grad:
    exactly, since the loss is affine in a."""
    a = world.leaf(v)
    layer = torch.nn.Linear(a.shape[-1], 2, device=world.device, dtype=a.dtype)
    weights = torch.arange(layer.weight.numel(), device=world.device, dtype=a.dtype)
    with torch.no_grad():
        layer.weight.copy_(weights.reshape(layer.weight.shape) + k)
        layer.bias.fill_(k)
    layer.requires_grad_(False)
    change = torch.zeros(a.shape, dtype=a.dtype, device=world.device)
    change.reshape(-1)[place % max(1, a.numel()) :][:1] = step

    loss = (layer(a) * 2).sum()
    loss.backward()
    changed = (layer(a.detach() + change) * 2).sum()

    same(changed - loss, (a.grad * change).sum(), why=f"one element was changed by {step}")
    columns = 2 * layer.weight.sum(0)
    same(a.grad, columns.expand_as(a), why="an input has the weights of its column, doubled")


def listing(device):
    """The article's listing with its line breaks, on a device."""
    where = f"device={str(device)!r}"
    return [
        "import torch",
        f"M = torch.nn.Linear(2, 2, {where})",
        "M.eval()  # evaluation mode",
        "# fill the parameters with 1",
        "with torch.no_grad():",
        "    for p in M.parameters():",
        "        p.fill_(1)",
        "M.requires_grad_(False)  # freeze the module",
        f"a = torch.tensor([1., 2.], requires_grad=True, {where})",
        f"b = torch.tensor([13., 32.], requires_grad=True, {where})",
        "c = M(a)",
        "c2 = M(b)",
        "d = c * 2",
        "d.sum().backward()",
        "print(a.grad)",
        "print(b.grad)",
        "print(c.grad)",
        "print(d.grad)",
        "print(M.weight.grad)",
    ]


@claim(cites=["article/program-runs-as-printed", "article/output-of-listing"], needs=["random", "printing"])
def spec_the_listing_runs_once_its_lines_are_restored(world):
    """With its line breaks lost, as the article prints it, the listing is a syntax error; with them it runs
    and prints the gradient of a and four times None."""
    lines = listing(world.device)

    with raises(SyntaxError, why="statements stand on one line, and a loop behind a comment sign"):
        compile(" ".join(lines), "listing", "exec")

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        with warns(UserWarning, "not a leaf", why="c and d aren't leaves"):
            exec(compile("\n".join(lines), "listing", "exec"), {})
    gradient = str(torch.tensor([4.0, 4.0], device=world.device))
    same(printed.getvalue().splitlines(), [gradient, *["None"] * 4], why="only a has a gradient")
