"""Mixed precision: what autocast and scaled losses do to gradients."""

import contextlib

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import SHAPES, WRITABLE, claim, raises, same, values

BF16 = torch.bfloat16
NEEDS = ["autocast", "bfloat16"]
LEFT = values(shapes=((2, 3), (1, 3), (3, 3), (0, 3)), dtypes=("float32",))
RIGHT = values(shapes=((3, 2), (3, 1), (3, 3)), layouts=WRITABLE, dtypes=("float32",))
NONEMPTY = tuple(shape for shape in SHAPES if shape and 0 not in shape)

# Matrix products that autocast computes in the lower precision everywhere.
PRODUCTS = {
    "x @ w": lambda x, w: x @ w,
    "torch.mm(x, w)": lambda x, w: torch.mm(x, w),
    "torch.matmul(x[None], w)[0]": lambda x, w: torch.matmul(x[None], w)[0],
    "torch.nn.functional.linear(x, w.t())": lambda x, w: torch.nn.functional.linear(x, w.t()),
    "torch.addmm(0 * x[:, :1].detach(), x, w)": lambda x, w: torch.addmm(0 * x[:, :1].detach(), x, w),
}
USES = st.lists(st.tuples(st.sampled_from(list(PRODUCTS)), st.booleans()), min_size=1, max_size=3)
# Outermost blocks, each with uses in it, in a nested block or not.
BLOCKS = st.lists(st.lists(st.booleans(), min_size=1, max_size=3), min_size=1, max_size=2)
# Blocks in which nothing is recorded.
UNRECORDED = {"torch.no_grad()": torch.no_grad, "torch.inference_mode()": torch.inference_mode}


def dtype_of_products(device):
    """The dtype that a product of float32 matrices has here and now."""
    one = torch.ones(1, 1, device=device)
    return (one @ one).dtype


def backward_from(results):
    """Backward from several results of any dtype, with gradients of ones; returns these in float32."""
    torch.autograd.backward(results, [torch.ones_like(y) for y in results])
    return torch.ones_like(results[0], dtype=torch.float32)


@claim(
    cites=["torch_amp/products-run-in-lower-precision", "torch_amp/backward-runs-in-the-dtype-of-forward"], needs=NEEDS
)
@given(v=LEFT, w=RIGHT, uses=USES, inside=st.booleans(), frozen=st.sampled_from(("", "x", "w")))
def spec_leaves_of_products_in_bfloat16_get_float32_gradients(world, v, w, uses, inside, frozen):
    """Under autocast products of float32 matrices are bfloat16, and so are the gradients of these in backward; the
    leaves get float32 gradients. It is the same whether backward is called in the block or behind it."""
    x, weight = world.constant(v).requires_grad_(frozen != "x"), world.constant(w).requires_grad_(frozen != "w")
    products, results, seen = [], [], []

    with torch.autocast(world.device.type, dtype=BF16):
        for use, widened in uses:
            y = PRODUCTS[use](x, weight)
            y.register_hook(lambda grad: seen.append(grad.dtype))
            products.append(y)
            results.append(y.float() * -2 if widened else y * -2)
        if inside:
            backward_from(results)
    if not inside:
        backward_from(results)

    same(products, [(world.constant(v) @ world.constant(w)).to(BF16)] * len(uses), why="products are cast")
    same(seen, [BF16] * len(uses), why="backward goes back through the casts")
    ones = torch.ones_like(products[0], dtype=torch.float32)
    by_x, by_w = ones @ world.constant(w).t(), world.constant(v).t() @ ones
    same(x.grad, None if frozen == "x" else -2 * len(uses) * by_x, why=f"x is float32, and used {len(uses)} times")
    same(weight.grad, None if frozen == "w" else -2 * len(uses) * by_w, why="w is float32")


@claim(observed=True, cites=["torch_amp/backward-outside-the-block"], since="2.6", needs=NEEDS)
@given(v=LEFT, w=RIGHT, forward=st.booleans(), backward=st.booleans(), on=st.sampled_from("xwy"), retain=st.booleans())
def spec_hooks_run_in_the_autocast_state_of_the_call_of_backward(world, v, w, forward, backward, on, retain):
    """Hooks run under autocast, with its dtype, if backward was called in a block of it, on whatever thread of the
    engine; the state in which the graph was recorded doesn't matter."""
    x, weight = world.leaf(v), world.leaf(w)
    seen = []
    with torch.autocast(world.device.type, dtype=BF16, enabled=forward):
        y = x @ weight
    {"x": x, "w": weight, "y": y}[on].register_hook(lambda grad: seen.append(dtype_of_products(world.device)))

    if retain:  # each call decides for itself
        y.backward(torch.ones_like(y), retain_graph=True)
    with torch.autocast(world.device.type, dtype=BF16, enabled=backward):
        y.backward(torch.ones_like(y))

    same(seen, [torch.float32] * retain + [BF16 if backward else torch.float32], why=f"backward in a block: {backward}")


@claim(cites=["torch_amp/cache-of-weights"], needs=NEEDS)
@given(v=LEFT, w=RIGHT, blocks=BLOCKS, cached=st.booleans(), leaf=st.booleans())
def spec_a_weight_is_cast_once_in_an_outermost_block(world, v, w, blocks, cached, leaf):
    """A float32 leaf that requires grad is cast once in an outermost block of autocast and the blocks within it, a
    result, and with cache_enabled=False any tensor, whenever it is used; the gradients of all uses add up."""
    x, parameter = world.constant(v), torch.nn.Parameter(world.constant(w))
    weight = parameter if leaf else parameter * 1
    results = []
    for block in blocks:
        with torch.autocast(world.device.type, dtype=BF16, cache_enabled=cached):
            for nested in block:
                with torch.autocast(world.device.type, dtype=BF16) if nested else contextlib.nullcontext():
                    results.append(x @ weight)
    casts = {y.grad_fn.next_functions[1][0] for y in results}
    ones = backward_from(results)

    same(len(casts), len(blocks) if cached and leaf else len(results), why=f"there are {len(blocks)} outermost blocks")
    same(parameter.grad, len(results) * (x.t() @ ones), why=f"it was used {len(results)} times")


@claim(observed=True, cites=["torch_amp/cache-of-weights"], needs=NEEDS)
@given(v=LEFT, w=RIGHT, by_step=st.booleans(), cleared=st.booleans(), cached=st.booleans())
def spec_a_weight_that_changes_in_the_block_keeps_its_cast(world, v, w, by_step, cleared, cached):
    """A weight that was used in a block of autocast and is changed there, be it by an optimizer, is used with its old
    numbers, also by backward, until the outermost block is left or the cache is cleared; no error tells of it."""
    x, weight = world.leaf(v), torch.nn.Parameter(world.constant(w))
    with torch.autocast(world.device.type, dtype=BF16, cache_enabled=cached):
        with torch.autocast(world.device.type, dtype=BF16):
            x.detach() @ weight
        if by_step:
            weight.grad = -world.constant(w)
            torch.optim.SGD([weight], lr=1).step()
            weight.grad = None
        else:
            weight.detach().mul_(2)
        if cleared:
            torch.clear_autocast_cache()
        y = x @ weight
    with torch.autocast(world.device.type, dtype=BF16):
        later = x.detach() @ weight
    ones = backward_from([y])

    used = world.constant(w) * (2 if cleared or not cached else 1)
    same(y, (world.constant(v) @ used).to(BF16), why=f"the cache was cleared: {cleared}; cache_enabled={cached}")
    same(x.grad, ones @ used.t(), why="backward multiplies by the numbers that forward used")
    same(weight.grad, world.constant(v).t() @ ones, why="the derivative by w is x")
    same(later, (world.constant(v) @ (2 * world.constant(w))).to(BF16), why="this is another block")


@claim(
    cites=["autograd_mechanics/no-grad-for-a-block-of-code", "torch_amp/cache-of-weights"], since="2.11", needs=NEEDS
)
@given(v=LEFT, w=RIGHT, modes=st.lists(st.sampled_from(["", *UNRECORDED]), max_size=3), cached=st.booleans())
def spec_a_weight_gets_its_gradient_after_a_use_without_grad_mode(world, v, w, modes, cached):
    """A weight that was used in no-grad or inference mode gets its gradient from later uses in grad mode in the same
    block of autocast."""
    x, weight = world.constant(v), torch.nn.Parameter(world.constant(w))
    results = []
    with torch.autocast(world.device.type, dtype=BF16, cache_enabled=cached):
        for mode in [*modes, ""]:
            with UNRECORDED[mode]() if mode else contextlib.nullcontext():
                y = x @ weight
            same(y.requires_grad, not mode, why=f"{mode} is on" if mode else f"grad mode is on, after {modes}")
            if not mode:
                results.append(y)

    ones = backward_from(results)
    same(weight.grad, len(results) * (x.t() @ ones), why=f"{len(results)} uses were recorded")


@claim(observed=True, cites=["torch_amp/cache-of-weights"], until="2.11", needs=NEEDS)
@given(v=LEFT, w=RIGHT, mode=st.sampled_from(list(UNRECORDED)), cached=st.booleans(), cleared=st.booleans())
def spec_a_weight_gets_no_gradient_after_a_use_without_grad_mode(world, v, w, mode, cached, cleared):
    """A weight that was used first in no-grad or inference mode counts as a constant in the rest of the block of
    autocast, unless the cache is off or cleared."""
    x, weight = world.constant(v), torch.nn.Parameter(world.constant(w))
    with torch.autocast(world.device.type, dtype=BF16, cache_enabled=cached):
        with UNRECORDED[mode]():
            x @ weight
        if cleared:
            torch.clear_autocast_cache()
        y = x @ weight

    same(y.requires_grad, cleared or not cached, why="the cast was made without grad mode")


@claim(cites=["torch_amp/blocks-nest", "torch_amp/works-as-decorator"], needs=NEEDS)
@given(v=LEFT, w=RIGHT, blocks=st.lists(st.tuples(st.booleans(), st.booleans()), max_size=3), fails=st.booleans())
def spec_the_innermost_block_of_autocast_decides(world, v, w, blocks, fails):
    """The innermost of nested blocks or decorators says whether products are cast; the one around it does so again
    when it is left, also by an exception. Uses of both kinds add up in the gradient."""
    x, weight = world.constant(v), torch.nn.Parameter(world.constant(w))
    results, expected = [], []

    def use(blocks, dtype):
        results.append(x @ weight)
        expected.append(dtype)
        for enabled, decorator in blocks[:1]:
            block = torch.autocast(world.device.type, dtype=BF16, enabled=enabled)
            with contextlib.suppress(ArithmeticError), contextlib.nullcontext() if decorator else block:
                (block(use) if decorator else use)(blocks[1:], BF16 if enabled else torch.float32)
            results.append(x @ weight)
            expected.append(dtype)
        if fails:
            raise ArithmeticError

    with contextlib.suppress(ArithmeticError):
        use(blocks, torch.float32)

    same([y.dtype for y in results], expected, why="that is what the innermost block says")
    ones = backward_from(results)
    same(weight.grad, len(results) * (x.t() @ ones), why=f"it was used {len(results)} times")


@claim(observed=True, cites=["torch_amp/mismatches-are-bugs"], since="2.2", needs=[*NEEDS, "float16"])
@given(v=LEFT, w=RIGHT, kept=st.booleans(), cleared=st.booleans())
def spec_a_weight_keeps_the_dtype_of_its_first_cast_in_nested_blocks(world, v, w, kept, cleared):
    """In a nested block with another lower dtype a weight that was cast before keeps its dtype, unless the cache is
    cleared: its product with another such weight has this dtype, and with any other tensor it is an error."""
    x, weight = torch.nn.Parameter(world.constant(v), requires_grad=kept), torch.nn.Parameter(world.constant(w))
    with torch.autocast(world.device.type, dtype=BF16):
        x @ weight
        with torch.autocast(world.device.type, dtype=torch.float16):
            if cleared:
                torch.clear_autocast_cache()
            if kept or cleared:
                same((x @ weight).dtype, torch.float16 if cleared else BF16, why=f"the cache was cleared: {cleared}")
            else:
                with raises(RuntimeError, "same dtype", why="x is cast to float16 and doesn't fit the weight"):
                    x @ weight


def product_for_autocast(kind, cast_inputs, seen):
    """A product of matrices with decorated forward and backward, which note the dtype that products have there."""

    class Product(torch.autograd.Function):
        @staticmethod
        @torch.amp.custom_fwd(device_type=kind, cast_inputs=cast_inputs)
        def forward(ctx, x, w):
            ctx.save_for_backward(x, w)
            seen.append((x.dtype, dtype_of_products(x.device)))
            return x @ w

        @staticmethod
        @torch.amp.custom_bwd(device_type=kind)
        def backward(ctx, grad):
            x, w = ctx.saved_tensors
            seen.append((x.dtype, dtype_of_products(x.device)))
            return grad @ w.t(), x.t() @ grad

    return Product


CUSTOM = ["torch_amp/custom-fwd-casts-inputs", "torch_amp/custom-bwd-has-the-state-of-forward"]
CASTS = st.sampled_from((None, torch.float32, BF16, torch.float16))


@claim(cites=CUSTOM, since="2.4", needs=[*NEEDS, "float16"])
@given(v=LEFT, w=RIGHT, forward=st.booleans(), backward=st.booleans(), cast_inputs=CASTS)
def spec_backward_of_a_function_has_the_autocast_state_of_forward(world, v, w, forward, backward, cast_inputs):
    """With custom_fwd and custom_bwd the backward of a Function runs under autocast if and only if its forward did,
    wherever it is called from; with cast_inputs forward gets cast tensors, and both run without autocast."""
    x, weight = world.leaf(v), world.leaf(w)
    seen = []
    product = product_for_autocast(world.device.type, cast_inputs, seen)
    with torch.autocast(world.device.type, dtype=BF16, enabled=forward):
        y = product.apply(x, weight)
    with torch.autocast(world.device.type, dtype=BF16, enabled=backward):
        ones = backward_from([y])

    input_dtype = cast_inputs if forward and cast_inputs else torch.float32
    state = (input_dtype, BF16 if forward and not cast_inputs else torch.float32)
    same(seen, [state, state], why=f"forward in a block: {forward}, backward: {backward}, cast_inputs={cast_inputs}")
    same(x.grad, ones @ world.constant(w).t(), why="x is float32")
    same(weight.grad, world.constant(v).t() @ ones, why="w is float32")


DRAWN = st.lists(values(layouts=WRITABLE, dtypes=("float64", "float32", "bfloat16")), min_size=1, max_size=3)


@claim(cites=["torch_amp/scale-multiplies", "torch_amp/unscale-once", "torch_amp/disabled-is-transparent"], since="2.3")
@given(drawn=DRAWN, power=st.integers(-3, 16), listed=st.booleans(), enabled=st.booleans())
def spec_a_scaler_scales_gradients_and_unscales_them_once(world, drawn, power, listed, enabled):
    """The gradients of scaled losses are exactly the scale times those of the losses; unscale_() divides them in place,
    the next one before the step is an error, and step() doesn't divide again. A disabled scaler leaves all as it is."""
    leaves = [world.leaf(v) for v in drawn]
    sgd = torch.optim.SGD(leaves, lr=1)
    scaler = torch.amp.GradScaler(world.device.type, init_scale=2.0**power, enabled=enabled)
    scale = 2.0**power if enabled else 1
    losses = [(p * number).sum() for number, p in enumerate(leaves, 1)]
    scaled = scaler.scale(losses) if listed else [scaler.scale(loss) for loss in losses]
    torch.autograd.backward(scaled)

    same([float(y) for y in scaled], [scale * float(loss) for loss in losses], why=f"the scale is {scale}")
    before = [p.grad for p in leaves]
    for number, grad in enumerate(before, 1):
        same(grad, torch.full_like(grad, scale * number), why="the derivative, times the scale")
    scaler.unscale_(sgd)
    with raises(RuntimeError, "already been called", why="it was called") if enabled else contextlib.nullcontext():
        scaler.unscale_(sgd)
    for number, (p, grad) in enumerate(zip(leaves, before), 1):
        same((p.grad is grad, grad), (True, torch.full_like(grad, number)), why="it was divided in place")
    scaler.step(sgd)
    for number, (p, v) in enumerate(zip(leaves, drawn), 1):
        same(p, world.constant(v) - number, why="the gradient was unscaled once")


# The last number of the gradient for each of two optimizers in an iteration, and whether unscale_() is called for it.
ITERATION = st.tuples(*[st.tuples(st.sampled_from(("1", "2", "inf", "nan", "-inf")), st.booleans())] * 2)
ITERATIONS = st.lists(ITERATION, min_size=1, max_size=6)
FACTORS = st.sampled_from(((2, 0.5), (4, 0.5), (2, 0.25)))  # growth and backoff


@claim(
    cites=["torch_amp/bad-steps-are-skipped", "torch_amp/scale-is-updated", "torch_amp/unscale-divides"], since="2.3"
)
@given(v=values(shapes=NONEMPTY, layouts=WRITABLE), iterations=ITERATIONS, interval=st.integers(1, 3), factors=FACTORS)
def spec_a_scaler_skips_steps_with_infinite_gradients(world, v, iterations, interval, factors):
    """step() leaves out the step of each optimizer that has an inf or a NaN in a gradient. Then update() multiplies
    the scale by backoff_factor, and by growth_factor after growth_interval iterations in a row without."""
    leaves, expected = [world.leaf(v), world.leaf(v)], [world.constant(v), world.constant(v)]
    optimizers = [torch.optim.SGD([p], lr=1) for p in leaves]
    scaler = torch.amp.GradScaler(world.device.type, 4.0, *factors, interval)
    scale, good = 4.0, 0
    for iteration in iterations:
        gradients = [torch.ones_like(p).detach() for p in leaves]
        for gradient, (number, _) in zip(gradients, iteration):
            gradient[-1:] = float(number)
        scaler.scale(sum((p * gradient).sum() for p, gradient in zip(leaves, gradients))).backward()
        for optimizer, (_, unscale) in zip(optimizers, iteration):
            if unscale:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            optimizer.zero_grad()
        scaler.update()

        finite = [number in "12" for number, _ in iteration]
        expected = [p - gradient if fine else p for p, gradient, fine in zip(expected, gradients, finite)]
        good = good + 1 if all(finite) else 0
        scale = scale * (factors[1] if not all(finite) else factors[0] if good == interval else 1)
        good = good % interval
        same(leaves, expected, why=f"the gradients end with {[number for number, _ in iteration]}")
        same(scaler.get_scale(), scale, why=f"{good} good iterations after the last update")
