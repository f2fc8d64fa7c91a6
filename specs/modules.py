"""What modules add to autograd: they hold parameters, and pass settings on to all the modules in them."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import claim, raises, same, values
from .kit.modules import networks


@claim(
    cites=[
        "article/parameters-iterates-all",
        "torch_nn/parameters-iterates-all",
        "torch_nn/recurse-false-means-direct-members",
        "torch_nn/named-parameters-gives-names",
        "torch_nn/named-parameters-leaves-out-duplicates",
        "torch_nn/submodules-are-registered",
    ]
)
@given(net=networks(), frozen=st.booleans())
def spec_parameters_goes_through_every_parameter_once(world, net, frozen):
    """parameters() goes through all parameters of a module and of the modules in it, frozen or not, and
    through one that several of them share only once; named_parameters() does, too, and tells their names."""
    module, parameters, parts = net.build(world)
    names = {id(parameter): name for name, parameter in parameters.items()}
    list(parameters.values())[-1].requires_grad_(not frozen)

    for path, part in parts.items():
        found = [names.get(id(parameter), "another") for parameter in part.parameters()]
        inside = [name for name in net.below[path] if name in parameters]
        same(sorted(found), sorted(inside), why=f"these are the parameters in {path or 'the module'}")

    found = {name: names.get(id(parameter), "another") for name, parameter in module.named_parameters()}
    same(found, {name: name for name in parameters}, why="each has the name of the place where it is met first")
    own = [names.get(id(parameter), "another") for parameter in module.parameters(recurse=False)]
    same(sorted(own), sorted(n for n in parameters if "." not in n), why="recurse=False leaves children out")


@claim(observed=True)
@given(net=networks())
def spec_parameters_come_in_a_fixed_order(world, net):
    """parameters() gives a module's own parameters before those of the modules in it, both in the order in
    which they were assigned, and gives them in the same order whenever it is called."""
    _, parameters, parts = net.build(world)
    names = {id(parameter): name for name, parameter in parameters.items()}

    for _ in range(2):
        for path, part in parts.items():
            found = [names.get(id(parameter), "another") for parameter in part.parameters()]
            same(found, [n for n in net.below[path] if n in parameters], why="that is the order of assignment")


ASSIGNED = {
    "torch.nn.Parameter(x)": lambda x: torch.nn.Parameter(x),
    "torch.nn.Parameter(x, requires_grad=False)": lambda x: torch.nn.Parameter(x, requires_grad=False),
    "x": lambda x: x,
    "x * 2": lambda x: x * 2,
    "x.detach()": lambda x: x.detach(),
    "torch.nn.ParameterList([torch.nn.Parameter(x)])": lambda x: torch.nn.ParameterList([torch.nn.Parameter(x)]),
}


@claim(
    cites=[
        "torch_nn/parameter-is-registered-when-assigned",
        "torch_nn/tensor-is-not-registered-when-assigned",
        "torch_nn/submodules-are-registered",
    ]
)
@given(v=values(), kinds=st.lists(st.sampled_from([*ASSIGNED]), min_size=1, max_size=4), recording=st.booleans())
def spec_assigning_a_parameter_registers_it(world, v, kinds, recording):
    """A Parameter assigned as an attribute of a module is one of its parameters from then on, in any grad
    mode; any other tensor, whether it requires grad or not, is a mere attribute."""
    module = torch.nn.Module()
    registered = []
    with torch.set_grad_enabled(recording):
        for number, kind in enumerate(kinds):
            assigned = ASSIGNED[kind](world.leaf(v))
            setattr(module, f"attribute{number}", assigned)
            same(getattr(module, f"attribute{number}") is assigned, True, why="it can be read back")
            if kind.startswith("torch.nn.ParameterList"):
                registered.append(assigned[0])
            elif kind.startswith("torch.nn.Parameter"):
                registered.append(assigned)
            found = [id(parameter) for parameter in module.parameters()]
            same(sorted(found), sorted(map(id, registered)), why=f"{kind} was assigned last")

    module.attribute0 = None if "Parameter" in kinds[0] else torch.nn.Parameter(world.leaf(v))
    count = len(registered) + (-1 if "Parameter" in kinds[0] else 1)
    same(len(list(module.parameters())), count, why="the first attribute was replaced")


LAYERS = {
    "torch.nn.Linear(2, 3)": lambda **where: torch.nn.Linear(2, 3, **where),
    "torch.nn.Linear(2, 3, bias=False)": lambda **where: torch.nn.Linear(2, 3, bias=False, **where),
    "torch.nn.Bilinear(1, 2, 3)": lambda **where: torch.nn.Bilinear(1, 2, 3, **where),
    "torch.nn.Conv1d(2, 3, 2)": lambda **where: torch.nn.Conv1d(2, 3, 2, **where),
    "torch.nn.Embedding(3, 2)": lambda **where: torch.nn.Embedding(3, 2, **where),
    "torch.nn.LayerNorm(3)": lambda **where: torch.nn.LayerNorm(3, **where),
    "torch.nn.BatchNorm1d(3)": lambda **where: torch.nn.BatchNorm1d(3, **where),
    "torch.nn.PReLU()": lambda **where: torch.nn.PReLU(**where),
    "torch.nn.GRUCell(2, 3)": lambda **where: torch.nn.GRUCell(2, 3, **where),
    "torch.nn.TransformerEncoderLayer(2, 1, 3)": lambda **where: torch.nn.TransformerEncoderLayer(2, 1, 3, **where),
}


@claim(
    cites=[
        "torch_nn/parameter-requires-grad-by-default",
        "torch_nn/no-grad-does-not-affect-parameters",
        "torch_nn/training-tells-the-mode",
    ]
)
@given(layers=st.lists(st.sampled_from([*LAYERS]), min_size=1, max_size=2), recording=st.booleans())
def spec_parameters_of_a_new_layer_are_leaves_that_require_grad(world, layers, recording):
    """The parameters of a new layer are leaves that require grad and have no .grad yet, also if it was
    made under no_grad; its buffers don't require grad, and it is in training mode."""
    with torch.set_grad_enabled(recording):
        module = torch.nn.Sequential(*(LAYERS[layer](device=world.device) for layer in layers))

    for name, parameter in module.named_parameters():
        same(parameter.requires_grad, True, why=f"{name} is a parameter")
        same(parameter.is_leaf, True, why=f"{name} was made by the user, not by an operation")
        same(parameter.grad_fn, None, why=f"how {name} was filled at first isn't recorded")
        same(parameter.grad, None, why="there was no backward yet")
    same([b.requires_grad for b in module.buffers()], [False for _ in module.buffers()], why="buffers aren't learned")
    same(all(part.training for part in module.modules()), True, why="training mode is the first mode")


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


@claim(
    cites=[
        "article/frozen-module-still-passes-input-grad",
        "article/frozen-weight-grad-none",
        "torch_nn/requires-grad-sets-the-parameters-flags",
        "torch_nn/module-requires-grad-returns-the-module",
        "autograd_mechanics/module-requires-grad-takes-all-parameters",
    ]
)
@given(net=networks(), earlier=st.one_of(st.none(), st.integers(-3, 3)), again=st.sampled_from(("()", "(True)")))
def spec_requires_grad_freezes_a_whole_module(world, net, earlier, again):
    """requires_grad_(False) freezes every parameter of a module and of the modules in it: backward leaves
    their .grad, None or not, as it was, but still gives the input its gradient. requires_grad_() undoes it."""
    module, parameters, _ = net.build(world)
    x = world.leaf(net.input)
    before = {name: None if earlier is None else torch.full_like(p, earlier) for name, p in parameters.items()}
    for name, parameter in parameters.items():
        parameter.grad = None if earlier is None else before[name].clone()

    same(module.requires_grad_(False) is module, True, why="it returns the module")
    same({parameter.requires_grad for parameter in parameters.values()}, {False}, why="all are frozen")
    module(x).backward(world.constant(net.cotangent))

    expected = net.gradients(world)
    same(x.grad, expected["input"], why="a frozen module is differentiated by its input all the same")
    for name, parameter in parameters.items():
        same(parameter.grad, before[name], why=f"{name} is frozen")

    module.requires_grad_() if again == "()" else module.requires_grad_(True)
    same({parameter.requires_grad for parameter in parameters.values()}, {True}, why="all are free again")
    module(x).backward(world.constant(net.cotangent))
    same(x.grad, 2 * expected["input"], why="the second backward adds to the first")
    for name, parameter in parameters.items():
        terms = [term for term in (before[name], expected[name]) if term is not None]
        same(parameter.grad, sum(terms) if terms else None, why=f"{name} is free again, and .grad was kept")


@claim(
    cites=[
        "autograd_mechanics/freezing-a-part-of-a-model",
        "autograd_mechanics/backward-fills-leaves-that-require-grad-only",
        "torch_nn/requires-grad-sets-the-parameters-flags",
    ]
)
@given(net=networks(), part=st.booleans(), choice=st.integers(0, 7), constant=st.booleans())
def spec_freezing_a_part_leaves_the_other_gradients_exact(world, net, part, choice, constant):
    """With one module inside frozen, or a single parameter, the other parameters and the input get the very
    gradients that they get otherwise; the frozen ones get none."""
    module, parameters, parts = net.build(world)
    x = world.constant(net.input) if constant else world.leaf(net.input)
    inside = list(parts)[1:]  # empty for a single layer
    if part and inside:
        path = inside[choice % len(inside)]
        parts[path].requires_grad_(False)
        frozen = [name for name in net.below[path] if name in parameters]
    else:
        frozen = [list(parameters)[choice % len(parameters)]]
        parameters[frozen[0]].requires_grad_(False)
    expected = net.gradients(world)
    learned = {name for name in parameters if name not in frozen and expected[name] is not None}

    y = module(x)
    same(y.requires_grad, bool(learned) or not constant, why=f"{sorted(learned)} can be learned")
    if y.requires_grad:
        y.backward(world.constant(net.cotangent))

    same(x.grad, None if constant else expected["input"], why="freezing parameters is no matter of the input")
    for name, parameter in parameters.items():
        same(parameter.requires_grad, name not in frozen, why=f"frozen are {frozen}")
        same(parameter.grad, expected[name] if name in learned else None, why=f"frozen are {frozen}")


@claim(
    cites=[
        "autograd_mechanics/backward-fills-leaves-that-require-grad-only",
        "autograd_mechanics/frozen-layers-are-not-tracked",
    ]
)
@given(net=networks(), in_forward=st.integers(0, 255), in_backward=st.integers(0, 255))
def spec_a_parameter_is_learned_if_it_requires_grad_in_both_passes(world, net, in_forward, in_backward):
    """A parameter gets a gradient only if it requires grad in the forward pass and still does in the backward
    pass: freezing it in between withholds the gradient, and unfreezing it in between comes too late."""
    module, parameters, _ = net.build(world)
    x = world.leaf(net.input)

    for number, parameter in enumerate(parameters.values()):
        parameter.requires_grad_(bool(in_forward >> number & 1))
    y = module(x)
    for number, parameter in enumerate(parameters.values()):
        parameter.requires_grad_(bool(in_backward >> number & 1))
    y.backward(world.constant(net.cotangent))

    expected = net.gradients(world)
    same(x.grad, expected["input"], why="the input required grad all the time")
    for number, (name, parameter) in enumerate(parameters.items()):
        learned = in_forward & in_backward & 1 << number
        same(parameter.grad, expected[name] if learned else None, why=f"{name} needs to require grad both times")


@claim(
    cites=[
        "article/computed-are-non-leaves",
        "autograd_mechanics/frozen-layers-are-not-tracked",
    ]
)
@given(net=networks(), training=st.booleans())
def spec_a_frozen_module_records_only_what_its_input_asks_for(world, net, training):
    """What a frozen module makes of an input that requires grad is not a leaf; what it makes of a constant
    is a leaf without a graph, and backward from there raises an error."""
    module, _, _ = net.build(world)
    module.requires_grad_(False).train(training)

    y = module(world.leaf(net.input))
    same((y.requires_grad, y.is_leaf, y.grad_fn is None), (True, False, False), why="the input requires grad")

    y = module(world.constant(net.input))
    same(y, world.constant(net.output), why="freezing doesn't change what is computed")
    same((y.requires_grad, y.is_leaf, y.grad_fn), (False, True, None), why="nothing here requires grad")
    with raises(RuntimeError, "does not require grad", why="there is no graph"):
        y.backward(world.constant(net.cotangent))


@claim(cites=["torch_nn/zero-grad-resets-all-parameters", "torch_nn/set-to-none-is-told-to-zero-grad"])
@given(net=networks(), set_to_none=st.booleans(), frozen=st.integers(0, 255))
def spec_zero_grad_resets_the_gradients_of_all_parameters(world, net, set_to_none, frozen):
    """zero_grad(set_to_none=True) makes the .grad of every parameter None, of frozen ones, too;
    zero_grad(set_to_none=False) fills the tensors with zeros in place and leaves None as it is. The input
    keeps its gradient, frozen parameters stay frozen, and the next backward starts anew."""
    module, parameters, _ = net.build(world)
    x, cotangent = world.leaf(net.input), world.constant(net.cotangent)
    module(x).backward(cotangent)
    before = {name: parameter.grad for name, parameter in parameters.items()}
    for number, parameter in enumerate(parameters.values()):
        parameter.requires_grad_(not frozen >> number & 1)

    module.zero_grad(set_to_none=set_to_none)
    for number, (name, parameter) in enumerate(parameters.items()):
        same(parameter.requires_grad, not frozen >> number & 1, why=f"only the gradient of {name} was reset")
        if set_to_none or before[name] is None:
            same(parameter.grad, None, why=f"the gradient of {name} was reset, or there was none")
        else:
            same(parameter.grad is before[name], True, why=f"the gradient of {name} is zeroed in place")
            same(parameter.grad, torch.zeros_like(parameter), why=f"the gradient of {name} was reset")
    expected = net.gradients(world)
    same(x.grad, expected["input"], why="the input is no parameter")

    module.requires_grad_(True)
    module(x).backward(cotangent)
    for name, parameter in parameters.items():
        same(parameter.grad, expected[name], why=f"nothing is left of the first gradient of {name}")


@claim(cites=["torch_nn/zero-grad-resets-all-parameters", "torch_nn/zero-grad-sets-none-by-default"], since="2.0")
@given(net=networks())
def spec_zero_grad_sets_grad_to_none(world, net):
    """zero_grad() makes the .grad of every parameter None."""
    module, parameters, _ = net.build(world)
    module(world.constant(net.input)).backward(world.constant(net.cotangent))

    same(module.zero_grad(), None, why="it returns nothing")
    for name, parameter in parameters.items():
        same(parameter.grad, None, why=f"the gradient of {name} was reset")


@claim(cites=["torch_nn/zero-grad-resets-all-parameters", "torch_nn/zero-grad-sets-none-by-default"], until="2.0")
@given(net=networks())
def spec_zero_grad_fills_grad_with_zeros(world, net):
    """zero_grad() fills the .grad of every parameter with zeros in place; None stays None."""
    module, parameters, _ = net.build(world)
    module(world.constant(net.input)).backward(world.constant(net.cotangent))
    before = {name: parameter.grad for name, parameter in parameters.items()}

    module.zero_grad()
    for name, parameter in parameters.items():
        same(parameter.grad is before[name], True, why=f"the gradient of {name} is zeroed in place")
        if parameter.grad is not None:
            same(parameter.grad, torch.zeros_like(parameter), why=f"the gradient of {name} was reset")


@claim(observed=True)
@given(net=networks())
def spec_zeroed_gradients_have_no_history(world, net):
    """zero_grad(set_to_none=False) cuts off the history that backward(create_graph=True) gave a .grad, so that
    it is a leaf that doesn't require grad."""
    module, parameters, _ = net.build(world)
    y = module(world.constant(net.input))
    (y * y).backward(world.constant(net.cotangent), create_graph=True)

    module.zero_grad(set_to_none=False)
    for name, parameter in parameters.items():
        if parameter.grad is not None:
            found = parameter.grad.is_leaf, parameter.grad.requires_grad
            same(found, (True, False), why=f"the gradient of {name} was zeroed")
            same(parameter.grad, torch.zeros_like(parameter), why=f"the gradient of {name} was zeroed")
        parameter.grad = None  # don't keep the graph that refers to the parameter
