"""What modules do to gradients: layers that are used, shared, and switched between training and evaluation."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import claim, same, values
from .kit.modules import networks


def batches(shape, features, dtype):
    """Values of an input of the shape, and of weight, bias and cotangent that fit it."""
    shapes = (shape, (features, shape[-1]), (features,), (*shape[:-1], features))
    return st.tuples(*(values(shapes=(each,), dtypes=(dtype,)) for each in shapes))


BATCHES = ((2,), (3, 2), (1, 3), (2, 1), (2, 2, 3), (0, 2), (1, 2, 1, 2))


LINEAR = st.tuples(st.sampled_from(BATCHES), st.sampled_from((3, 2, 1)), st.sampled_from(("float64", "float32")))


@claim(cites=["torch_nn/linear-is-affine", "torch_nn/linear-takes-any-batch"])
@given(drawn=LINEAR.flatmap(lambda form: batches(*form)), bias=st.booleans())
def spec_the_gradients_of_a_linear_layer(world, drawn, bias):
    """Backward through a Linear layer gives the input the cotangent times the weight, the weight the outer
    products of cotangent and input, and the bias the cotangent, the latter two summed over the batch."""
    v, w, b, cotangent = drawn
    x, weight, g = world.leaf(v), world.constant(w), world.constant(cotangent)
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias)
    layer.weight = torch.nn.Parameter(weight)
    if bias:
        layer.bias = torch.nn.Parameter(world.constant(b))

    layer(x).backward(g)

    outer = g.unsqueeze(-1) * x.detach().unsqueeze(-2)  # one matrix for each element of the batch
    same(layer.weight.grad, outer.reshape(-1, *weight.shape).sum(0), why="the weight is used for the whole batch")
    if bias:
        same(layer.bias.grad, g.reshape(-1, weight.shape[0]).sum(0), why="so is the bias")
    by_input = (g.unsqueeze(-1) * weight).sum(-2)
    same(x.grad, by_input, why="each input gets its own cotangent times the weight")


@claim(cites=["torch_autograd/backward-accumulates", "article/chain-rule-root-to-leaf"])
@given(net=networks(), factors=st.lists(st.sampled_from((1, 2, -1, 0)), min_size=1, max_size=3))
def spec_every_use_of_a_parameter_counts(world, net, factors):
    """Backward gives each parameter, however deep it lies, the sum over all its uses: by one module called
    several times, and by several modules that share it. A parameter that isn't used keeps None."""
    module, parameters, _ = net.build(world)
    x, cotangent = world.leaf(net.input), world.constant(net.cotangent)

    outputs = [module(x) for _ in factors]  # several calls before one backward
    same(outputs[-1], world.constant(net.output), why="that is what the layers compute")
    torch.autograd.backward(outputs, [cotangent * factor for factor in factors])

    expected = net.gradients(world)
    same(x.grad, expected["input"] * sum(factors), why="the input is used in each call")
    for name, parameter in parameters.items():
        gradient = expected[name] if expected[name] is None else expected[name] * sum(factors)
        same(parameter.grad, gradient, why=f"{name} is used in each call, if at all")


SWITCHES = {
    "eval()": (lambda module: module.eval(), False),
    "train()": (lambda module: module.train(), True),
    "train(False)": (lambda module: module.train(False), False),
    "train(True)": (lambda module: module.train(True), True),
}


@claim(
    cites=[
        "article/eval-sets-evaluation-mode",
        "torch_nn/eval-is-train-false",
        "torch_nn/eval-and-train-return-the-module",
    ]
)
@given(
    net=networks(),
    switches=st.lists(st.tuples(st.sampled_from([*SWITCHES]), st.integers(0, 7)), min_size=1, max_size=3),
)
def spec_eval_and_train_switch_a_module_and_all_in_it(world, net, switches):
    """eval() puts a module and all modules in it into evaluation mode, train() puts them back into training
    mode; modules outside keep their mode. Both return the module."""
    _, _, parts = net.build(world)
    paths = list(parts)
    training = dict.fromkeys(paths, True)

    for switch, choice in switches:
        path = paths[choice % len(paths)]  # paths[0] is the whole module
        call, mode = SWITCHES[switch]
        same(call(parts[path]) is parts[path], True, why=f"{switch} returns its module")
        training |= {inside: mode for inside in net.below[path] if inside in parts}
        found = {each: part.training for each, part in parts.items()}
        same(found, training, why=f"{switch} was called on {path or 'the whole'}")


@claim(
    cites=[
        "autograd_mechanics/eval-does-not-disable-gradients",
        "torch_nn/mode-matters-to-certain-modules-only",
    ]
)
@given(net=networks(), in_forward=st.sampled_from([*SWITCHES]), in_backward=st.sampled_from([*SWITCHES]))
def spec_evaluation_mode_stops_no_gradient(world, net, in_forward, in_backward):
    """Evaluation mode, set before the forward pass or after it, stops no gradient: layers without a mode of
    their own compute the same, record the same, and input and parameters get the same gradients."""
    module, parameters, _ = net.build(world)
    x = world.leaf(net.input)

    SWITCHES[in_forward][0](module)
    same({p.requires_grad for p in parameters.values()}, {True}, why=f"{in_forward} freezes no parameter")
    y = module(x)
    SWITCHES[in_backward][0](module)
    same({p.requires_grad for p in parameters.values()}, {True}, why=f"{in_backward} freezes no parameter")
    same(y.requires_grad, True, why="operations are recorded in both modes")
    same(y, world.constant(net.output), why="no layer here depends on the mode")
    y.backward(world.constant(net.cotangent))

    expected = net.gradients(world)
    same(x.grad, expected["input"], why="no layer here depends on the mode")
    for name, parameter in parameters.items():
        same(parameter.grad, expected[name], why=f"{name} gets its gradient in both modes")


@claim(
    cites=[
        "torch_nn/eval-is-train-false",
        "torch_nn/mode-matters-to-certain-modules-only",
        "autograd_mechanics/eval-is-orthogonal-to-grad-modes",
    ]
)
@given(
    net=networks(),
    switches=st.lists(st.sampled_from([*SWITCHES]), min_size=1, max_size=3),
    frozen=st.integers(0, 255),
    recording=st.booleans(),
)
def spec_eval_and_train_leave_parameters_and_gradients_alone(world, net, switches, frozen, recording):
    """eval() and train() change nothing about parameters and buffers, in any grad mode: neither values nor versions,
    neither .grad nor whether they require grad; and the next backward adds to the gradients that are there."""
    module, parameters, _ = net.build(world)
    module.register_buffer("buffer", world.leaf(net.input))
    module.buffer.grad = torch.ones_like(module.buffer).detach()
    x, cotangent = world.leaf(net.input), world.constant(net.cotangent)
    module(x).backward(cotangent)
    for number, p in enumerate(parameters.values()):
        p.requires_grad_(not frozen >> number & 1)
    tensors = {**parameters, "buffer": module.buffer}
    before = {n: (t.detach().clone(), t.grad, t.requires_grad, t._version) for n, t in tensors.items()}
    expected = net.gradients(world)

    for switch in switches:
        with torch.set_grad_enabled(recording):
            SWITCHES[switch][0](module)
        for name, (old, grad, requires_grad, version) in before.items():
            t = tensors[name]
            same([t, t._version, t.is_leaf], [old, version, True], why=f"{switch} is no matter of values")
            same((t.grad is grad, t.requires_grad), (True, requires_grad), why=f"{switch} is no matter of gradients")
            gradient = torch.ones_like(t) if name == "buffer" else expected[name]
            same(grad, gradient, why=f"{switch} is no matter of gradients")
    module.requires_grad_(True)
    module(x).backward(cotangent)
    for name, p in parameters.items():
        same(p.grad, expected[name] if expected[name] is None else 2 * expected[name], why="it was added to .grad")


MODES = {
    "torch.enable_grad()": lambda: torch.enable_grad(),
    "torch.no_grad()": lambda: torch.no_grad(),
    "torch.set_grad_enabled(False)": lambda: torch.set_grad_enabled(False),
    "torch.inference_mode()": lambda: torch.inference_mode(),
}


@claim(
    cites=[
        "autograd_mechanics/eval-is-orthogonal-to-grad-modes",
        "autograd_mechanics/no-grad-as-if-no-input-requires-grad",
    ]
)
@given(
    net=networks(),
    mode=st.sampled_from([*MODES]),
    switches=st.lists(st.sampled_from([*SWITCHES]), min_size=1, max_size=3),
)
def spec_grad_mode_and_training_mode_leave_each_other_alone(world, net, mode, switches):
    """Training or evaluation mode and grad mode combine freely: eval() and train() don't change whether
    operations are recorded, and entering or leaving a grad mode doesn't change a module's mode."""
    module, parameters, parts = net.build(world)
    x = world.leaf(net.input)
    recording = mode == "torch.enable_grad()"

    with MODES[mode]():
        same(all(part.training for part in parts.values()), True, why=f"{mode} was entered in training mode")
        for switch in switches:
            call, training = SWITCHES[switch]
            call(module)
            same(torch.is_grad_enabled(), recording, why=f"{switch} isn't about grad mode")
            same(module(x).requires_grad, recording, why=f"what counts is {mode}")
            same({part.training for part in parts.values()}, {training}, why=f"{mode} isn't about training")
    same({part.training for part in parts.values()}, {training}, why=f"{mode} was left")
    same(torch.is_grad_enabled(), True, why=f"{mode} was left")
    same(module(x).requires_grad, True, why=f"{mode} was left")
    same({parameter.requires_grad for parameter in parameters.values()}, {True}, why="nobody changed that")


DROPOUTS = {
    "torch.nn.Dropout": torch.nn.Dropout,
    "torch.nn.AlphaDropout": torch.nn.AlphaDropout,
    "torch.nn.FeatureAlphaDropout": torch.nn.FeatureAlphaDropout,
}


@claim(cites=["torch_nn/dropout-is-the-identity-in-evaluation", "article/eval-sets-evaluation-mode"])
@given(v=values(), kind=st.sampled_from([*DROPOUTS]), p=st.sampled_from((0.5, 0.25, 0.0, 1.0)), depth=st.integers(0, 2))
def spec_dropout_in_evaluation_mode_passes_all(world, v, kind, p, depth):
    """In evaluation mode a dropout layer, also one inside other modules, passes each element on as it is,
    and each gradient back as it is."""
    module = DROPOUTS[kind](p)
    for _ in range(depth):
        module = torch.nn.Sequential(module)
    module.eval()
    x = world.leaf(v)

    y = module(x)
    same(y, x.detach(), why="nothing is dropped in evaluation mode")
    (y * y).sum().backward()

    same(x.grad, 2 * x.detach(), why="the gradient of sum(x*x) is 2x")


@claim(cites=["torch_nn/dropout-zeroes-and-scales"], needs=["random"])
@given(
    shape=st.sampled_from(((3,), (), (1,), (2, 3), (200,), (20, 15), (0,))),
    number=st.sampled_from((1, 2, -1, 3)),
    p=st.sampled_from((0.5, 0.75, 0.0, 1.0)),
    back=st.booleans(),
    recording=st.booleans(),
)
def spec_dropout_in_training_mode_drops_gradients_with_elements(world, shape, number, p, back, recording):
    """In training mode Dropout zeroes elements or scales them by 1/(1-p), also after a time in evaluation
    mode and in every grad mode, and it treats the gradient of each element as it treated the element."""
    module = torch.nn.Sequential(torch.nn.Dropout(p))
    if back:
        module.eval().train()
    x = torch.full(shape, float(number), device=world.device, requires_grad=True)
    scale = 1 / (1 - p) if p < 1 else 0.0
    cotangent = torch.arange(x.numel(), device=world.device).reshape(shape) % 4 + 1.0

    with torch.set_grad_enabled(recording):
        y = module(x)
    factor = (y / number).detach()
    kept = factor != 0
    same(factor, torch.where(kept, torch.full_like(factor, scale), 0 * factor), why="kept elements are scaled")
    if x.numel() >= 200 and 0 < p < 1:
        same(0 < int(kept.sum()) < x.numel(), True, why="among so many elements some are dropped and some kept")
    if p == 0:
        same(bool(kept.all()), True, why="nothing is dropped with probability 0")
    if recording:
        y.backward(cotangent)
        same(x.grad, cotangent * factor, why="the gradient is dropped and scaled like the element")


@claim(cites=["torch_nn/batch-norm-keeps-running-statistics", "torch_nn/buffer-is-no-parameter"])
@given(
    drawn=st.tuples(*[values(shapes=((4, 2),), dtypes=("float64", "float32"))] * 2),
    training=st.lists(st.booleans(), min_size=1, max_size=3),
    recording=st.booleans(),
    leaf=st.booleans(),
)
def spec_running_statistics_are_updated_without_a_graph(world, drawn, training, recording, leaf):
    """BatchNorm in training mode, and in no other, updates its running statistics in place, in every grad mode and
    without a record: they don't require grad and get no gradient."""
    inputs = [world.leaf(v) if leaf else world.constant(v) for v in drawn]
    layer = torch.nn.BatchNorm1d(2, momentum=0.5, device=world.device, dtype=inputs[0].dtype)
    if inputs[0].dtype != inputs[1].dtype:
        inputs[1] = inputs[1].to(inputs[0].dtype)
    mean, variance, count = torch.zeros_like(inputs[0][0]), torch.ones_like(inputs[0][0]), 0
    buffers = [layer.running_mean, layer.running_var, layer.num_batches_tracked]

    for number, mode in enumerate(training):
        x = inputs[number % 2]
        layer.train(mode)
        with torch.set_grad_enabled(recording):
            y = layer(x)
        same(y.requires_grad, recording, why="the layer has parameters")
        if recording:
            y.sum().backward()
        if mode:
            mean = (mean + x.detach().mean(0)) / 2
            count += 1
        same([layer.running_mean, int(layer.num_batches_tracked)], [mean.detach(), count], why=f"training is {mode}")
        if not count:
            same(layer.running_var, variance.detach(), why="nothing was updated")
        found = [layer.running_mean, layer.running_var, layer.num_batches_tracked]
        same([b is old for b, old in zip(found, buffers)], [True] * 3, why="they are updated in place")
        same(
            [(b.requires_grad, b.grad_fn, b.grad) for b in found], [(False, None, None)] * 3, why="nothing is recorded"
        )


@claim(cites=["torch_nn/batch-norm-uses-running-statistics-in-evaluation"])
@given(
    v=values(shapes=((4, 2), (1, 2), (3, 2)), dtypes=("float64", "float32")),
    mean=st.sampled_from((0, 1, -2)),
    weight=st.sampled_from((1, 2, -3)),
)
def spec_batch_norm_in_evaluation_mode_is_an_affine_function(world, v, mean, weight):
    """In evaluation mode BatchNorm takes its running statistics for constants: each element of the input gets the
    cotangent times weight and inverse deviation, the weight the normalized input, the bias the cotangent."""
    x = world.leaf(v)
    layer = torch.nn.BatchNorm1d(2, eps=1.0, device=world.device, dtype=x.dtype).eval()
    layer.running_mean.fill_(mean)
    layer.running_var.fill_(3)
    torch.nn.init.constant_(layer.weight, weight)
    cotangent = x.detach() + 1

    layer(x).backward(cotangent)

    same(x.grad, cotangent * weight / 2, why="the deviation, with eps, is 2")
    same(layer.weight.grad, (cotangent * (x.detach() - mean) / 2).sum(0), why="that is the normalized input")
    same(layer.bias.grad, cotangent.sum(0), why="the bias is added")
    same([layer.running_mean, layer.running_var], [torch.full_like(x[0], mean), torch.full_like(x[0], 3)], why="kept")
