"""Tensors that were written after an operation had saved them for backward."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import WRITABLE, claim, raises, same, values
from .kit.choices import some_of
from .kit.writes import ALIASES, UNRECORDED, WRITES, error_of, target_and_operand

ANY_WAY = st.sampled_from(list(UNRECORDED))
ANY_WRITE = st.sampled_from(list(WRITES))
CHANGED = "modified by an inplace operation"

# Functions of p and w that keep p for backward, if both require grad.
KEEPING = {
    "p * w": lambda p, w: p * w,
    "w * p": lambda p, w: w * p,
    "p * p": lambda p, w: p * p,
    "w / p": lambda p, w: w / p,
    "p / w": lambda p, w: p / w,
    "p**2": lambda p, w: p**2,
    "p**w": lambda p, w: p**w,
    "p.square()": lambda p, w: p.square(),
    "p.abs()": lambda p, w: p.abs(),
    "p.sin()": lambda p, w: p.sin(),
    "p.log()": lambda p, w: p.log(),
    "p.erf()": lambda p, w: p.erf(),
    "p.clamp(-1, 1)": lambda p, w: p.clamp(-1, 1),
    "p.prod()": lambda p, w: p.prod(),
    "p.var()": lambda p, w: p.var(),
    "p.cumprod(0)": lambda p, w: p.cumprod(0),
    "p.logsumexp(0)": lambda p, w: p.logsumexp(0),
    "p.norm()": lambda p, w: p.norm(),
    "torch.atan2(w, p)": lambda p, w: torch.atan2(w, p),
    "torch.maximum(p, w)": lambda p, w: torch.maximum(p, w),
    "torch.addcmul(w, w, p)": lambda p, w: torch.addcmul(w, w, p),
    "torch.lerp(w, 2 * w, p)": lambda p, w: torch.lerp(w, 2 * w, p),
    "torch.nn.functional.mse_loss(p, w)": lambda p, w: torch.nn.functional.mse_loss(p, w),
    "torch.nn.functional.gelu(p)": lambda p, w: torch.nn.functional.gelu(p),
    "torch.nn.functional.leaky_relu(p)": lambda p, w: torch.nn.functional.leaky_relu(p),
    "torch.nn.functional.softplus(p)": lambda p, w: torch.nn.functional.softplus(p),
    "p[...] * w": lambda p, w: p[...] * w,
    "p.unsqueeze(0) * w": lambda p, w: p.unsqueeze(0) * w,
    "p.expand(2, *p.shape) * w": lambda p, w: p.expand(2, *p.shape) * w,
    "p.detach() * w": lambda p, w: p.detach() * w,
}


@claim(
    cites=[
        "autograd_mechanics/changed-saved-tensor-raises",
        "torch_autograd/tensors-keep-track-of-writes",
        "introyt/writes-can-destroy-what-backward-needs",
    ],
    formerly=["parameters/a_change_of_a_saved_tensor_is_noticed"],
)
@given(
    pair=target_and_operand(),
    functions=some_of(KEEPING),
    writes=some_of(WRITES),
    computed=st.booleans(),
    way=ANY_WAY,
    recorded=st.booleans(),
    by_grad=st.booleans(),
)
def spec_a_change_of_a_saved_tensor_is_noticed(world, pair, functions, writes, computed, way, recorded, by_grad):
    """When a tensor that an operation saved for backward was written in place afterwards, recorded or not, be it
    a leaf or a result, backward raises an error; a leaf whose gradient needs the old numbers gets none."""
    target, operand = pair
    for number in range(max(len(functions), len(writes))):
        function, write = functions[number % len(functions)], writes[number % len(writes)]
        x, w = world.leaf(target), world.leaf(operand)
        p = x * 1 if computed else x
        y = KEEPING[function](p, torch.ones_like(p).detach() * w).sum()

        if computed and recorded:
            WRITES[write].run(p, w)
        else:
            UNRECORDED[way](lambda: WRITES[write].run(p, w))

        with raises(RuntimeError, CHANGED, why=f"{function} saved p before {write}"):
            if by_grad:
                torch.autograd.grad(y, [x, w], allow_unused=True)
            else:
                y.backward()
        same(x.grad, None, why="its gradient can't be computed any more")
        w.grad = None  # which doesn't always need the old numbers
        (x * w).sum().backward()
        same(x.grad, w.detach().expand(x.shape), why="a new graph saves the new numbers")
        same(w.grad, x.detach().sum_to_size(w.shape), why="a new graph saves the new numbers")


# Functions that keep their result.
KEEPING_THE_RESULT = {
    "p.exp()": lambda p: p.exp(),
    "p.expm1()": lambda p: p.expm1(),
    "p.sigmoid()": lambda p: p.sigmoid(),
    "p.tanh()": lambda p: p.tanh(),
    "p.tan()": lambda p: p.tan(),
    "p.sqrt()": lambda p: p.sqrt(),
    "p.rsqrt()": lambda p: p.rsqrt(),
    "p.reciprocal()": lambda p: p.reciprocal(),
    "p.relu()": lambda p: p.relu(),
    "torch.nn.functional.relu(p.clone(), inplace=True)": lambda p: torch.nn.functional.relu(p.clone(), inplace=True),
    "p.clone().exp_()": lambda p: p.clone().exp_(),
    "p.softmax(-1)": lambda p: p.softmax(-1),
    "p.log_softmax(-1)": lambda p: p.log_softmax(-1),
    "p.logsumexp(-1, keepdim=True)": lambda p: p.logsumexp(-1, keepdim=True),
}
# Functions whose result nobody keeps, and their derivative.
SPARING_THE_RESULT = {
    "p + 1": (lambda p: p + 1, 1),
    "p * 3": (lambda p: p * 3, 3),
    "-p": (lambda p: -p, -1),
    "p.clone()": (lambda p: p.clone(), 1),
    "p.unsqueeze(0) * 2": (lambda p: p.unsqueeze(0) * 2, 2),
    "torch.nn.functional.linear(p[..., None], two)": (
        lambda p: torch.nn.functional.linear(p[..., None], torch.full_like(p[..., None].detach().sum(), 2)[None, None]),
        2,
    ),
    "torch.where(p == p, p, 0 * p)": (lambda p: torch.where(p.detach() == p.detach(), p, 0 * p), 1),
}


@claim(
    cites=[
        "autograd_mechanics/writes-can-overwrite-what-gradients-need",
        "autograd_mechanics/changed-saved-tensor-raises",
    ]
)
@given(
    pair=target_and_operand(),
    functions=some_of(KEEPING_THE_RESULT, 4),
    writes=some_of(WRITES),
    way=st.one_of(st.none(), ANY_WAY),
    later=st.booleans(),
)
def spec_a_change_of_a_saved_result_is_noticed(world, pair, functions, writes, way, later):
    """An operation whose derivative is computed from its result, such as exp or relu, saves the result: a write
    to it, relu_ too, makes backward raise an error, without a gradient for what lies below."""
    target, operand = pair
    for number in range(max(len(functions), len(writes))):
        function, write = functions[number % len(functions)], writes[number % len(writes)]
        x, w = world.leaf(target), world.constant(operand)
        y = KEEPING_THE_RESULT[function](x)
        loss = (y * 2).sum()

        if way is None:
            WRITES[write].run(y, w if y.shape == x.shape else w.sum())
        else:
            UNRECORDED[way](lambda: WRITES[write].run(y, w if y.shape == x.shape else w.sum()))

        with raises(RuntimeError, CHANGED, why=f"{function} saved its result before {write}"):
            (y.sum() if later else loss).backward()
        same(x.grad, None, why="its gradient can't be computed any more")


@claim(cites=["autograd_mechanics/changed-saved-tensor-raises"])
@given(
    v=values(layouts=WRITABLE),
    before=st.integers(0, 3),
    names=st.lists(st.sampled_from(list(ALIASES)), max_size=2),
    after=st.integers(0, 3),
    result=st.booleans(),
)
def spec_only_writes_after_the_saving_count(world, v, before, names, after, result):
    """Writes before an operation saved a tensor are no hindrance, as many as there were: the numbers that were
    saved count. Each later one, through a view or what was detached as well, makes backward raise an error."""
    x = world.leaf(v)
    y = x * 1 if result else x
    part = y[:0] if names and not y.numel() and y.dim() else y
    for _ in range(before):
        part.detach().add_(1)
    old = y.detach().clone()
    loss = (y * y).sum()
    alias = y
    for name in names if y.numel() else []:
        alias = ALIASES[name](alias)

    with torch.no_grad():
        for _ in range(after):
            alias.mul_(2)

    if after:
        with raises(RuntimeError, CHANGED, why=f"y was written through {names}"):
            loss.backward()
        same(x.grad, None, why="the old numbers are lost")
    else:
        loss.backward()
        same(x.grad, 2 * old, why="all writes came before the square")


@claim(cites=["autograd_mechanics/changed-saved-tensor-raises"])
@given(v=values(layouts=WRITABLE), result=st.booleans(), way=st.sampled_from(["copy_", "two writes", "nothing new"]))
def spec_a_write_counts_also_if_the_numbers_are_the_old_ones(world, v, result, way):
    """To write the old numbers back, or numbers that are no others, doesn't help: the version only grows, and
    backward raises the error."""
    x = world.leaf(v)
    y = x * 1 if result else x
    loss = (y * y).sum()
    old = y.detach().clone()

    with torch.no_grad():
        if way == "copy_":
            y.zero_()
            y.copy_(old)
        elif way == "two writes":
            y.add_(1).sub_(1)
        else:
            y.mul_(1)

    same(y, old, why="y has its old numbers")
    with raises(RuntimeError, CHANGED, why="y was written all the same"):
        loss.backward()
    same(x.grad, None, why="backward failed")


@claim(observed=True)
@given(v=values(layouts=WRITABLE), before=st.integers(0, 12), after=st.integers(1, 12), result=st.booleans())
def spec_the_error_tells_the_versions(world, v, before, after, result):
    """The error about a change says at which version the tensor is and at which it was saved, and how to find the
    operation that saved it."""
    x = world.leaf(v)
    y = x * 1 if result else x
    for _ in range(before):
        y.detach().add_(1)
    loss = (y * y).sum()
    for _ in range(after):
        y.detach().add_(1)

    expected = f"is at version {before + after}; expected version {before} instead. Hint: enable anomaly detection"
    with raises(RuntimeError, expected, why=f"{before} writes came before, {after} behind"):
        loss.backward()


# Functions that save nothing of p, and their derivative.
SPARING = {
    "p + w": (lambda p, w: p + w, 1),
    "w - p": (lambda p, w: w - p, -1),
    "p * 3": (lambda p, w: p * 3, 3),
    "p / 0.5": (lambda p, w: p / 0.5, 2),
    "-p": (lambda p, w: -p, -1),
    "p.clone()": (lambda p, w: p.clone(), 1),
    "p.sum() * 2": (lambda p, w: p.sum() * 2, 2),
    "p.sum(-1)": (lambda p, w: p.sum(-1), 1),
    "p * torch.full_like(p, 2)": (lambda p, w: p * torch.full_like(p.detach(), 2), 2),
    "p[...] + p": (lambda p, w: p[...] + p, 2),
    "p.square().detach() - p": (lambda p, w: p.square().detach() - p, -1),
    "torch.stack([p, p, -p])": (lambda p, w: torch.stack([p, p, -p]), 1),
    "p.unsqueeze(-1).expand(*p.shape, 3) * 1": (lambda p, w: p.unsqueeze(-1).expand(*p.shape, 3) * 1, 3),
    "p.transpose(0, -1).reshape(-1) * 1": (lambda p, w: p.transpose(0, -1).reshape(-1) * 1, 1),
    "p.to(torch.float16)": (lambda p, w: p.to(torch.float16), 1),
    "torch.where(w == w, p, w)": (lambda p, w: torch.where(w == w, p, w), 1),
    "p.masked_fill(w != w, 3)": (lambda p, w: p.masked_fill(w.detach() != w.detach(), 3), 1),
    "p.cumsum(0)[-1:] if p.dim() else p": (lambda p, w: p.cumsum(0)[-1:] if p.dim() else p + 0, 1),
    "torch.nn.functional.pad(p[None], (1, 1))": (lambda p, w: torch.nn.functional.pad(p[None], (1, 1)), 1),
    "p.flip(0) if p.dim() else p": (lambda p, w: p.flip(0) if p.dim() else p + 0, 1),
    "torch.add(w, p, alpha=-2)": (lambda p, w: torch.add(w, p, alpha=-2), -2),
    "torch.lerp(w, p, 3.0)": (lambda p, w: torch.lerp(w, p, 3.0), 3),
}


@claim(
    cites=["autograd_mechanics/no-error-means-right-gradients"],
    formerly=["parameters/a_change_of_a_tensor_that_is_not_saved_does_no_harm"],
    needs=["float16"],
)
@given(
    pair=target_and_operand(),
    functions=some_of(SPARING, 4),
    writes=st.lists(ANY_WRITE, min_size=1, max_size=2),
    computed=st.booleans(),
    way=ANY_WAY,
)
def spec_a_change_of_a_tensor_that_is_not_saved_does_no_harm(world, pair, functions, writes, computed, way):
    """When a tensor that backward doesn't need was written under no_grad, be it a leaf or a result, backward
    gives the gradient of what was computed before the write."""
    target, operand = pair
    for name in functions:
        x, w = world.leaf(target), world.leaf(operand)
        p = x * 1 if computed else x
        function, factor = SPARING[name]
        y = function(p, torch.ones_like(p).detach() * w)
        numbers = y.detach().clone()

        for write in writes:
            UNRECORDED[way](lambda: WRITES[write].run(p, w))

        same(y, numbers, why=f"{name} was computed before, and is no view of p")
        refused = error_of(lambda: y.sum().backward())
        same(refused, None, why=f"{name} didn't save p before {writes}")
        same(x.grad, torch.full_like(x, factor), why=f"{name} didn't save p before {writes}")


@claim(cites=["autograd_mechanics/no-error-means-right-gradients"])
@given(pair=target_and_operand(), name=st.sampled_from(list(SPARING_THE_RESULT)), writes=some_of(WRITES))
def spec_a_result_that_nobody_saved_can_be_written(world, pair, name, writes):
    """The result of an operation whose derivative doesn't need it, and relu_ after it, does no harm: backward
    gives the gradient through the operation and the write."""
    target, operand = pair
    function, factor = SPARING_THE_RESULT[name]
    for write in writes:
        x, w = world.leaf(target), world.constant(operand)
        y = function(x)
        old = y.detach().clone()
        other = w if y.shape == x.shape else w.sum()

        WRITES[write].run(y, other)
        refused = error_of(lambda: y.sum().backward())

        same(refused, None, why=f"{name} didn't save its result before {write}")
        derivative = WRITES[write].by_y(old, other) + torch.zeros_like(old)
        same(x.grad, factor * derivative.reshape(x.shape), why=f"{name} didn't save its result before {write}")


# Products, each of which has w, spread over the shape of p, as its derivative by p, and p as that by w.
PRODUCTS = {
    "p * w": lambda p, w: p * w,
    "w * p": lambda p, w: w * p,
    "torch.addcmul(torch.zeros_like(p), p, w)": lambda p, w: torch.addcmul(torch.zeros_like(p.detach()), p, w),
    "p.reshape(-1) @ w.reshape(-1)": lambda p, w: p.reshape(-1) @ w.reshape(-1),
    "torch.dot(p.reshape(-1), w.reshape(-1))": lambda p, w: torch.dot(p.reshape(-1), w.reshape(-1)),
    "torch.mm(p.reshape(1, -1), w.reshape(-1, 1))": lambda p, w: torch.mm(p.reshape(1, -1), w.reshape(-1, 1)),
    "torch.nn.functional.linear(p.reshape(1, -1), w.reshape(1, -1))": lambda p, w: torch.nn.functional.linear(
        p.reshape(1, -1), w.reshape(1, -1)
    ),
    "torch.einsum('...,...->', p, w)": lambda p, w: torch.einsum("i,i->", p.reshape(-1), w.reshape(-1)),
}


@claim(cites=["autograd_mechanics/no-error-means-right-gradients", "autograd_mechanics/changed-saved-tensor-raises"])
@given(
    v=values(layouts=("contiguous", "offset")),
    products=some_of(PRODUCTS, 4),
    first=st.booleans(),
    tracked=st.sampled_from(["a", "b", "both"]),
)
def spec_a_factor_is_saved_only_for_the_gradient_of_the_other(world, v, products, first, tracked):
    """Of a product only those factors matter to backward whose counterpart requires grad: where one is a
    constant, the other can be written afterwards, but the constant can't."""
    for name in products:
        p, q = world.constant(v), world.constant(v) + 2
        p.requires_grad_(tracked != "b")
        q.requires_grad_(tracked != "a")
        a, b = p * 1, q * 1
        numbers = (a if first else b).detach().clone(), (b if first else a).detach().clone()
        y = PRODUCTS[name](a, b).sum()
        written, other = (a, b) if first else (b, a)

        written.detach().add_(1)

        if other.requires_grad:
            with raises(RuntimeError, CHANGED, why=f"{name} saved what was written, for the gradient of the other"):
                y.backward()
            same((q if first else p).grad, None, why="its gradient needs the old numbers")
        else:
            same(error_of(lambda: y.backward()), None, why=f"{name} saved the constant only")
            same((p if first else q).grad, numbers[1], why=f"{name} saved the constant only")


@claim(
    cites=[
        "torch_autograd/changed-saved-tensors-raise-when-backward-starts",
        "autograd_mechanics/changed-saved-tensor-raises",
    ]
)
@given(v=values(layouts=WRITABLE), above=st.integers(0, 3), below=st.integers(0, 2), behind=st.booleans())
def spec_the_error_comes_when_the_saved_tensor_is_needed(world, v, above, below, behind):
    """The change of a saved tensor is noticed when backward comes to the node that saved it. The nodes before
    have run by then, and leaves that end there may have their gradients; those behind the node have none."""
    x, leaves, ran = world.leaf(v), [], []
    y = x * 1
    for _ in range(below):
        y = y * 2
    z = y * y
    for number in range(above):
        leaves.append(torch.zeros_like(x, requires_grad=True))
        z = z + leaves[-1]
        z.register_hook(lambda gradient, number=number: ran.append(number))
    y.register_hook(lambda gradient: ran.append("behind"))

    y.detach().add_(1)

    with raises(RuntimeError, CHANGED, why="y was saved"):
        z.sum().backward(retain_graph=behind)
    same(ran, list(reversed(range(above))), why="the nodes above the square have run, and none below it")
    same(x.grad, None, why="x lies behind the square")
    got = torch.autograd.grad(z.sum(), leaves) if leaves and behind else []
    same(list(got), [torch.ones_like(x).detach() for _ in got], why="these gradients don't need y")


@claim(cites=["torch_autograd/changed-saved-tensors-raise-when-backward-starts"])
@given(v=values(layouts=WRITABLE), by_grad=st.booleans(), passes=st.integers(1, 2))
def spec_a_change_does_no_harm_where_the_saved_tensor_is_not_needed(world, v, by_grad, passes):
    """If backward is asked only for gradients for which the node that saved a written tensor needn't run, they
    are right, and no error comes; it comes as soon as the node is needed."""
    x, other = world.leaf(v), world.leaf(v)
    y = x * 1
    loss = (y * y + other * 3).sum()

    y.detach().zero_()

    for number in range(1, passes + 1):
        if by_grad:
            (gradient,) = torch.autograd.grad(loss, other, retain_graph=True)
            same(gradient, torch.full_like(y.detach(), 3), why="y isn't needed for it")
        else:
            loss.backward(inputs=[other], retain_graph=True)
            same(other.grad, torch.full_like(y.detach(), 3 * number), why="y isn't needed for it")
    with raises(RuntimeError, CHANGED, why="the gradient by x needs y"):
        torch.autograd.grad(loss, [other, x])


@claim(cites=["autograd_mechanics/changed-saved-tensor-raises"])
@given(v=values(layouts=WRITABLE), passes=st.integers(1, 3), write=ANY_WRITE, create_graph=st.booleans())
def spec_a_write_between_two_backwards_is_noticed_by_the_second(world, v, passes, write, create_graph):
    """A graph that was retained can be differentiated again until a tensor that it saved is written. The
    backward after that raises the error; the gradients of those before it stay as they were."""
    x = world.leaf(v)
    y = x * 1
    loss = (y * y).sum()
    gradients = []
    for _ in range(passes):
        gradients += torch.autograd.grad(loss, x, retain_graph=True, create_graph=create_graph)

    WRITES[write].run(y.detach(), torch.ones_like(y).detach())
    with raises(RuntimeError, CHANGED, why="y was written since the last backward"):
        torch.autograd.grad(loss, x)
    same([g.detach() for g in gradients], [2 * x.detach()] * passes, why="y was as it had been saved")


@claim(cites=["autograd_mechanics/changed-saved-tensor-raises", "autograd_mechanics/no-error-means-right-gradients"])
@given(
    v=values(shapes=((2, 3), (1, 3), (3, 3)), dtypes=("float64",)),
    layer=st.integers(0, 2),
    kind=st.sampled_from(["weight", "bias"]),
    sgd=st.booleans(),
)
def spec_an_optimizer_step_between_forward_and_backward_is_noticed(world, v, layer, kind, sgd):
    """A step that changes the weights of a model between its forward and its backward makes backward raise an
    error, if one of those weights is needed for the gradients of layers before it; biases aren't."""
    x = world.constant(v)
    weights = [torch.eye(3, dtype=x.dtype, device=x.device, requires_grad=True) for _ in range(3)]
    biases = [torch.zeros(3, dtype=x.dtype, device=x.device, requires_grad=True) for _ in range(3)]
    y = x
    for weight, bias in zip(weights, biases):
        y = torch.nn.functional.linear(y, weight, bias)
    loss = y.sum()
    parameter = (weights if kind == "weight" else biases)[layer]
    if sgd:
        parameter.grad = torch.ones_like(parameter)
        torch.optim.SGD([parameter], lr=1).step()
    else:
        with torch.no_grad():
            parameter -= 1
    if kind == "weight" and layer > 0:
        with raises(RuntimeError, CHANGED, why="the layers before it need this weight"):
            loss.backward()
        same(weights[0].grad, None, why="it needs the old weight, unless it is that one")
    else:
        loss.backward()
        expected = x.sum(0).expand(3, 3) + (1 if sgd and layer == 0 and kind == "weight" else 0)
        same(weights[0].grad, expected, why="all weights were the identity")


class Doubled(torch.autograd.Function):
    """Twice a tensor, which it saves without need."""

    @staticmethod
    def forward(ctx, tensor, looks):
        """Save the tensor; `looks` says whether backward reads it."""
        ctx.save_for_backward(tensor)
        ctx.looks = looks
        return tensor * 2

    @staticmethod
    def backward(ctx, gradient):
        """The derivative is 2, whatever was saved."""
        read = ctx.saved_tensors if ctx.looks else ()  # versions are compared here
        return gradient * (2 + 0 * len(read)), None


@claim(cites=["autograd_mechanics/versions-are-compared-when-saved-tensors-are-read"])
@given(v=values(layouts=WRITABLE), writes=st.integers(0, 2), looks=st.booleans(), result=st.booleans())
def spec_a_function_of_the_user_checks_what_it_saved_when_it_reads_it(world, v, writes, looks, result):
    """What an autograd.Function saved with save_for_backward is checked when its backward reads saved_tensors: if
    it was written since, that raises the error. A backward that doesn't read it goes on."""
    x = world.leaf(v)
    y = x * 1 if result else x
    z = Doubled.apply(y, looks).sum()
    for _ in range(writes):
        y.detach().mul_(3)
    if writes and looks:
        with raises(RuntimeError, CHANGED, why="backward read what had been changed"):
            z.backward()
        same(x.grad, None, why="backward failed")
    else:
        z.backward()
        same(x.grad, torch.full_like(x, 2), why="the function doubles")
