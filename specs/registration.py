"""What a module holds: parameters and other modules, and how they come into it."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import WRITABLE, claim, raises, same, values
from .kit.choices import some_of
from .kit.modules import networks
from .kit.tensors import WRAPPED


@claim(
    cites=[
        "article/parameters-iterates-all",
        "torch_nn/parameters-iterates-all",
        "torch_nn/recurse-false-means-direct-members",
        "torch_nn/named-parameters-gives-names",
        "torch_nn/named-parameters-leaves-out-duplicates",
        "torch_nn/submodules-are-registered",
    ],
    formerly=["modules/parameters_goes_through_every_parameter_once"],
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


@claim(observed=True, formerly=["modules/parameters_come_in_a_fixed_order"])
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
    ],
    formerly=["modules/assigning_a_parameter_registers_it"],
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
    ],
    formerly=["modules/parameters_of_a_new_layer_are_leaves_that_require_grad"],
    needs=["random"],
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


@claim(
    cites=[
        "torch_nn/parameter-is-made-of-a-tensor",
        "torch_nn/parameter-requires-grad-by-default",
        "torch_nn/no-grad-does-not-affect-parameters",
    ]
)
@given(
    v=values(layouts=WRITABLE),
    kind=st.sampled_from([*WRAPPED]),
    flag=st.sampled_from([None, True, False]),
    recording=st.booleans(),
)
def spec_a_parameter_is_a_leaf_over_the_memory_of_its_tensor(world, v, kind, flag, recording):
    """nn.Parameter(t) is a new leaf over the memory of t, whatever t is, a view or a result included, and in any
    grad mode. It requires grad unless told otherwise, no gradient flows from it to t, and t is as before."""
    x = world.leaf(v)
    t = WRAPPED[kind](x)
    before = (t.requires_grad, t.is_leaf, t.grad_fn, t.grad)

    with torch.set_grad_enabled(recording):
        p = torch.nn.Parameter(t) if flag is None else torch.nn.Parameter(t, requires_grad=flag)
    same((p is t, p.is_leaf, p.grad_fn, p.grad), (False, True, None, None), why="a parameter is a new leaf")
    same(p.requires_grad, flag is not False, why=f"requires_grad={flag} was told, and the default is True")
    same([p, p.data_ptr(), p.stride()], [t, t.data_ptr(), t.stride()], why="it has the memory of the tensor")
    if p.requires_grad:
        (p * 3).sum().backward()
    same(p.grad, torch.full_like(t, 3) if p.requires_grad else None, why="the parameter is a leaf of its own")
    same(x.grad, None, why="nothing leads from the parameter to what its tensor was made of")
    same((t.requires_grad, t.is_leaf, t.grad_fn), before[:3], why="the tensor is as it was")
    same(t.grad if t.is_leaf else None, None, why="the tensor is another leaf, if it is one")

    with torch.no_grad():
        p.fill_(7)
    same(t, torch.full_like(t, 7), why="both have the same memory")


WHOLE = ("int64", "int32", "int16", "int8", "uint8", "bool")


@claim(cites=["torch_nn/parameter-is-made-of-a-tensor", "torch_autograd/only-floating-point-and-complex"])
@given(v=values(), dtype=st.sampled_from(WHOLE), told=st.booleans(), grad=st.booleans())
def spec_a_parameter_of_integers_is_one_that_does_not_require_grad(world, v, dtype, told, grad):
    """nn.Parameter of a tensor of integers or booleans raises an error, unless it is told requires_grad=False;
    then it is a parameter like others, without a gradient, and the error comes when it is to require grad later."""
    t = world.constant(v).abs().to(getattr(torch, dtype))
    module = torch.nn.Module()
    with raises(RuntimeError, "floating point", why=f"{dtype} can't require grad"):
        module.p = torch.nn.Parameter(t, requires_grad=True) if told else torch.nn.Parameter(t)
    same(list(module.parameters()), [], why="no parameter was made")

    p = module.p = torch.nn.Parameter(t, requires_grad=False)
    module.requires_grad_(False)
    with raises(RuntimeError, "loating point", why=f"{dtype} can't require grad"):
        p.requires_grad_() if grad else module.requires_grad_()
    same((p.requires_grad, p.is_leaf, p.grad_fn, p.grad), (False, True, None, None), why="a leaf without gradient")
    same([p, p.data_ptr()], [t, t.data_ptr()], why="it has the memory of the tensor")
    same([name for name, _ in module.named_parameters()], ["p"], why="it is registered like any other")


@claim(
    cites=[
        "torch_nn/register-parameter-makes-an-attribute",
        "torch_nn/none-is-no-parameter",
        "torch_nn/parameter-is-registered-when-assigned",
    ]
)
@given(
    v=values(),
    ways=st.lists(
        st.tuples(st.sampled_from(("call", "assign", "none", "again")), st.booleans()), min_size=1, max_size=5
    ),
)
def spec_register_parameter_does_what_assigning_does(world, v, ways):
    """register_parameter(name, p) makes p, the very object, an attribute and a parameter of the module, as assigning
    it does, frozen or not. A name registered as None is an attribute, but no parameter, until one is assigned to it."""
    module, expected = torch.nn.Module(), {}
    for number, (way, frozen) in enumerate(ways):
        p = torch.nn.Parameter(world.constant(v), requires_grad=not frozen)
        if way == "assign":
            setattr(module, f"p{number}", p)
        else:
            module.register_parameter(f"p{number}", p if way == "call" else None)
        if way == "again":  # the slot was there, with None in it
            same(getattr(module, f"p{number}"), None, why="it was registered as None")
            setattr(module, f"p{number}", p)
        expected[f"p{number}"] = None if way == "none" else p

        if p is expected[f"p{number}"]:
            same((p.requires_grad, p.is_leaf), (not frozen, True), why="registering changes no flag")

    for name, p in expected.items():
        same(getattr(module, name) is p, True, why=f"{name} is an attribute")
    registered = {name: p for name, p in expected.items() if p is not None}
    found = list(module.named_parameters())
    same([name for name, _ in found], list(registered), why="None is no parameter")
    same([p is registered[name] for name, p in found], [True] * len(found), why="the very objects were registered")
    same(list(module.state_dict()), list(registered), why="None isn't in the state")
    sum((p * 2).sum() for p in [world.leaf(v), *registered.values()]).backward()
    for p in registered.values():
        same(p.grad, torch.full_like(p, 2) if p.requires_grad else None, why="it is a leaf like any other")


@claim(cites=["torch_nn/parameter-is-registered-when-assigned", "torch_nn/register-parameter-makes-an-attribute"])
@given(
    v=values(),
    way=st.sampled_from(("assign", "register", "delete", "none", "a tensor instead")),
    deep=st.booleans(),
    used=st.booleans(),
)
def spec_a_parameter_that_was_replaced_is_not_the_modules_any_more(world, v, way, deep, used):
    """A parameter whose name is assigned another, None, or deleted, is no parameter of the module any more: the module
    computes with the new one, which gets the gradients; the old one keeps its .grad and serves graphs from before."""
    inner = torch.nn.Module()
    module = torch.nn.Sequential(inner) if deep else inner
    inner.p = old = torch.nn.Parameter(world.constant(v))
    before = (inner.p * 3).sum()
    if used:
        (inner.p * 5).sum().backward()
    new = torch.nn.Parameter(world.constant(v) + 1)

    if way == "assign":
        inner.p = new
    elif way == "register":
        inner.register_parameter("p", new)
    elif way == "none":
        inner.p = None
    else:
        del inner.p
        same(hasattr(inner, "p"), False, why="it was deleted")
    if way == "a tensor instead":  # the name is free
        inner.p = new.detach().clone().requires_grad_()
    registered = [new] if way in ("assign", "register") else []
    same([id(p) for p in module.parameters()], [id(p) for p in registered], why=f"{way} was the last thing done")
    if registered:
        (inner.p * 2).sum().backward()
    same(new.grad, torch.full_like(new, 2) if registered else None, why="only the new one was used")
    same(old.grad, torch.full_like(old, 5) if used else None, why="it isn't the module's any more")
    module.zero_grad(set_to_none=True)
    before.backward()
    same(old.grad, torch.full_like(old, 8 if used else 3), why="the graph from before leads to the old one")


def changed_in_place(p, w):
    """A Parameter that is no leaf any more: frozen at first, then multiplied by what requires grad."""
    result = torch.nn.Parameter(p.detach().clone(), requires_grad=False)
    result.mul_(w)
    return result


# Registrations that a module with `taken`, a parameter, `child` and `buffer` refuses: the error, and what it says.
REFUSED = {
    "module.register_parameter('buffer', p)": (lambda m, p: m.register_parameter("buffer", p), KeyError, "exists"),
    "module.register_parameter('child', p)": (lambda m, p: m.register_parameter("child", p), KeyError, "exists"),
    "module.register_parameter('training', p)": (lambda m, p: m.register_parameter("training", p), KeyError, "exists"),
    "module.register_parameter('a.b', p)": (lambda m, p: m.register_parameter("a.b", p), KeyError, '"."'),
    "module.register_parameter('', p)": (lambda m, p: m.register_parameter("", p), KeyError, "empty"),
    "module.register_parameter(3, p)": (lambda m, p: m.register_parameter(3, p), TypeError, "string"),
    "module.register_parameter('new', x)": (
        lambda m, p: m.register_parameter("new", p.detach()),
        TypeError,
        "required",
    ),
    "module.register_parameter('new', p * 2)": (lambda m, p: m.register_parameter("new", p * 2), TypeError, "required"),
    "module.register_parameter('new', q)": (
        lambda m, p: m.register_parameter("new", changed_in_place(p, p)),
        ValueError,
        "non-leaf",
    ),
    "module.new = q": (lambda m, p: setattr(m, "new", changed_in_place(p, p)), ValueError, "non-leaf"),
    "module.taken = x": (lambda m, p: setattr(m, "taken", p.detach()), TypeError, "Parameter or None"),
    "module.taken = p * 2": (lambda m, p: setattr(m, "taken", p * 2), TypeError, "Parameter or None"),
    "module.taken = 3": (lambda m, p: setattr(m, "taken", 3), TypeError, "Parameter or None"),
    "module.child = x": (lambda m, p: setattr(m, "child", p.detach()), TypeError, "Module or None"),
    "module.buffer = 3": (lambda m, p: setattr(m, "buffer", 3), TypeError, "Tensor or None"),
    "module.register_buffer('taken', x)": (lambda m, p: m.register_buffer("taken", p.detach()), KeyError, "exists"),
    "module.register_buffer('new', 3)": (lambda m, p: m.register_buffer("new", 3), TypeError, "required"),
    "module.get_parameter('new')": (lambda m, p: m.get_parameter("new"), AttributeError, "new"),
    "module.get_parameter('child.new')": (lambda m, p: m.get_parameter("child.new"), AttributeError, "new"),
    "module.get_parameter('no.weight')": (lambda m, p: m.get_parameter("no.weight"), AttributeError, "no"),
    "module.get_parameter('buffer')": (lambda m, p: m.get_parameter("buffer"), AttributeError, "Parameter"),
}


@claim(
    cites=[
        "torch_nn/parameter-is-registered-when-assigned",
        "torch_nn/get-parameter-finds-it-by-its-name",
        "torch_nn/register-parameter-makes-an-attribute",
    ]
)
@given(v=values(), refused=some_of(REFUSED), used=st.booleans())
def spec_what_cannot_be_registered_changes_nothing(world, v, refused, used):
    """A name that is taken or malformed, a tensor that is no Parameter in a parameter's place, a Parameter that is
    no leaf: to register such is an error that leaves module, parameters and gradients as they were."""
    module = torch.nn.Module()
    taken, buffer = torch.nn.Parameter(world.constant(v)), world.constant(v)
    module.taken = taken
    module.child = child = torch.nn.Sequential(torch.nn.PReLU())
    module.register_buffer("buffer", buffer)
    p = torch.nn.Parameter(world.constant(v))
    y = (module.taken * 2).sum()
    if used:
        (p * 3).sum().backward()

    for name in refused:
        register, error, telling = REFUSED[name]
        with raises(error, telling, why=f"{name} is refused"):
            register(module, p)
        found = (module.taken is taken, module.child is child, module.buffer is buffer, module.training)
        same(found, (True, True, True, True), why="every attribute is as it was")
        same(hasattr(module, "new"), False, why="the new one was refused")
        names = [name for name, _ in module.named_parameters()]
        same(names, ["taken", "child.0.weight"], why="nothing was registered or lost")
        same([name for name, _ in module.named_buffers()], ["buffer"], why="nothing was registered or lost")

    same((p.is_leaf, p.requires_grad, p._version), (True, True, 0), why="the parameter was refused")
    same(p.grad, torch.full_like(p, 3) if used else None, why="the parameter was refused")
    same(taken, world.constant(v), why="the parameter in that place was kept")
    y.backward()
    same(taken.grad, torch.full_like(taken, 2), why="the graph is as it was")


@claim(cites=["torch_nn/apply-goes-through-all-modules", "autograd_mechanics/no-grad-for-in-place-updates"])
@given(net=networks(), choice=st.integers(0, 7), number=st.integers(1, 3))
def spec_apply_goes_through_every_module(world, net, choice, number):
    """apply(fn) calls fn with every module inside, and at last with the module itself, which it returns. What fn
    fills under no_grad stays a leaf that requires grad; grad mode is the caller's."""
    _, parameters, parts = net.build(world)
    path = list(parts)[choice % len(parts)]
    seen = []

    def fill(part):
        seen.append(part)
        for p in part.parameters(recurse=False):
            with torch.no_grad():
                p.fill_(number)

    same(parts[path].apply(fill) is parts[path], True, why="apply() returns the module")

    inside = [name for name in net.below[path] if name in parts]
    same({id(part) for part in seen}, {id(parts[name]) for name in inside}, why=f"these are in {path or 'the whole'}")
    same(seen[-1] is parts[path], True, why="the module itself comes last")
    same(torch.is_grad_enabled(), True, why="the mode is the caller's")
    old, _, _ = net.build(world)
    before = {name: p.detach() for name, p in old.named_parameters()}
    for name, p in parameters.items():
        expected = torch.full_like(p, number) if name in net.below[path] else before[name]
        same(p, expected, why=f"the modules in {path or 'the whole'} were filled")
        same((p.is_leaf, p.requires_grad, p.grad_fn, p.grad), (True, True, None, None), why="nothing was recorded")
