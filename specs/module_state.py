"""The state of a module read, loaded, converted and copied: what becomes of its parameters and their gradients."""

import copy
import pickle

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import WRITABLE, claim, raises, same, values
from .kit.choices import some_of
from .kit.modules import networks


def marked(parameters, frozen, grad):
    """Freeze the parameters whose bit is set, give each a .grad (if any), and tell what is known of each then."""
    for number, p in enumerate(parameters.values()):
        p.requires_grad_(not frozen >> number & 1)
        p.grad = None if grad is None else torch.full_like(p, grad).detach()
    return {name: (p, p.requires_grad, p.grad, p.detach().clone(), p._version) for name, p in parameters.items()}


@claim(
    cites=[
        "torch_nn/state-dict-refers-to-the-state",
        "torch_nn/state-dict-is-detached",
        "torch_nn/non-persistent-buffers-are-no-state",
    ]
)
@given(
    net=networks(),
    v=values(layouts=WRITABLE),
    persistent=st.booleans(),
    frozen=st.integers(0, 255),
    recording=st.booleans(),
)
def spec_state_dict_refers_to_the_module_without_its_graph(world, net, v, persistent, frozen, recording):
    """state_dict() names every parameter and persistent buffer and gives each as a detached tensor of the same
    memory, in any grad mode; the parameters, their flags and gradients stay as they are."""
    module, parameters, _ = net.build(world)
    before = marked(parameters, frozen, 3)
    x = world.leaf(v)
    module.register_buffer("buffer", x * 2, persistent=persistent)
    module.register_buffer("nothing", None)

    with torch.set_grad_enabled(recording):
        state = module.state_dict()

    tensors = {name: p.detach() for name, p in parameters.items()}
    if persistent:
        tensors["buffer"] = module.buffer.detach()
    same(set(tensors) <= set(state), True, why="these are its parameters and persistent buffers")
    found = {t.data_ptr() for t in state.values() if t.numel()}  # a shared one has several names
    same(found, {t.data_ptr() for t in tensors.values() if t.numel()}, why="there is nothing else in the state")
    for name, t in tensors.items():
        same([state[name], state[name].data_ptr()], [t, t.data_ptr()], why=f"{name} is referred to")
        flags = (state[name].requires_grad, state[name].is_leaf, state[name].grad_fn, state[name].grad)
        same(flags, (False, True, None, None), why=f"{name} is detached")
    for name, (p, requires_grad, grad, _, _) in before.items():
        same((p.requires_grad, p.is_leaf, p.grad is grad), (requires_grad, True, True), why=f"{name} was only read")
        state[name].fill_(5)
        same(p, torch.full_like(p, 5), why=f"what is written into the state of {name} is written into it")
    same(x.grad, None, why="nothing was differentiated")
    same(module.buffer.requires_grad, True, why="the buffer keeps its history")


@claim(cites=["torch_nn/keep-vars-gives-the-tensors-themselves"])
@given(net=networks(), frozen=st.integers(0, 255), prefix=st.sampled_from(("", "model.")))
def spec_keep_vars_gives_the_parameters_themselves(world, net, frozen, prefix):
    """state_dict(keep_vars=True) gives the very parameters and buffers, not detached."""
    module, parameters, _ = net.build(world)
    before = marked(parameters, frozen, None)
    x = world.leaf(net.input)
    module.register_buffer("buffer", x * 2)

    state = module.state_dict(keep_vars=True, prefix=prefix)

    same(state[prefix + "buffer"] is module.buffer, True, why="it is the buffer itself")
    same(module.buffer.requires_grad, True, why="it wasn't detached")
    for name, (p, requires_grad, _, _, _) in before.items():
        same(state[prefix + name] is p, True, why=f"it is {name} itself")
        same((p.requires_grad, p.is_leaf), (requires_grad, True), why=f"{name} was only read")


# Tensors with the values of t, which doesn't require grad, as they may stand in a state.
STORED = {
    "t": lambda t: t,
    "t.clone().requires_grad_()": lambda t: t.clone().requires_grad_(),
    "t.clone().requires_grad_() * 1": lambda t: t.clone().requires_grad_() * 1,
    "torch.nn.Parameter(t)": lambda t: torch.nn.Parameter(t),
    "torch.nn.Parameter(t, requires_grad=False)": lambda t: torch.nn.Parameter(t, requires_grad=False),
    "t.to(torch.float32)": lambda t: t.to(torch.float32),
    "t.to(torch.bfloat16)": lambda t: t.to(torch.bfloat16),
    "torch.stack([t, t])[1]": lambda t: torch.stack([t, t])[1],
    "torch.stack([t, t], -1)[..., 0]": lambda t: torch.stack([t, t], -1)[..., 0],
}


@claim(
    cites=[
        "torch_nn/load-state-dict-copies",
        "torch_nn/load-state-dict-keeps-properties",
        "torch_nn/load-state-dict-tells-the-keys",
    ],
    needs=["bfloat16"],
)
@given(
    net=networks(),
    kinds=some_of(STORED, 4),
    frozen=st.integers(0, 255),
    grad=st.sampled_from((None, 3)),
    recording=st.booleans(),
)
def spec_load_state_dict_copies_in_place_and_records_nothing(world, net, kinds, frozen, grad, recording):
    """load_state_dict() copies values into the parameters in place, unrecorded, in any grad mode and whatever the
    state's tensors require: they are the same leaves, with their own dtype, memory, requires_grad and .grad."""
    module, parameters, _ = net.build(world)
    before = marked(parameters, frozen, grad)
    state = module.state_dict()
    for number, (name, p) in enumerate(state.items()):
        state[name] = STORED[kinds[number % len(kinds)]](2 - p.clone())
    flags = [(t.requires_grad, t.is_leaf, t.grad_fn, t._version) for t in state.values()]
    addresses = [p.data_ptr() for p in parameters.values()]

    with torch.set_grad_enabled(recording):
        result = module.load_state_dict(state)
    same([*result.missing_keys, *result.unexpected_keys], [], why="every key fits")

    for name, (p, requires_grad, old_grad, old, version) in before.items():
        same(module.get_parameter(name) is p, True, why=f"{name} was written in place")
        same(p, 2 - old, why=f"the new values of {name} were loaded")
        same((p.is_leaf, p.requires_grad, p.grad_fn), (True, requires_grad, None), why="nothing was recorded")
        same(p.grad is old_grad, True, why="the values changed, not .grad")
        same(p.grad, None if grad is None else torch.full_like(p, grad), why="the values changed, not .grad")
        same(p._version > version, True, why="a change in place is counted")
    same([p.data_ptr() for p in parameters.values()], addresses, why="the values were copied")
    same([(t.requires_grad, t.is_leaf, t.grad_fn, t._version) for t in state.values()], flags, why="it was only read")

    for p in parameters.values():
        p.grad = None
    (world.leaf(net.input).sum() + sum((p * p).sum() for p in parameters.values())).backward()
    for name, (p, requires_grad, _, old, _) in before.items():
        same(p.grad, 2 * (2 - old) if requires_grad else None, why=f"{name} is differentiated at its new values")
    same([t.grad for t in state.values() if t.is_leaf], [None for t in state.values() if t.is_leaf], why="only copied")


@claim(cites=["autograd_mechanics/changed-saved-tensor-raises", "torch_nn/load-state-dict-copies"])
@given(v=values(layouts=WRITABLE), w=values(layouts=WRITABLE), saved=st.booleans(), second=st.booleans())
def spec_loading_between_forward_and_backward_is_noticed(world, v, w, saved, second):
    """When load_state_dict() wrote a parameter that was saved for backward, backward raises an error and gives it
    no gradient; a parameter that wasn't saved gets its gradient all the same."""
    module = torch.nn.Module()
    module.p, module.q = torch.nn.Parameter(world.constant(v)), torch.nn.Parameter(world.constant(w))
    written = module.q if second else module.p
    state = {"q" if second else "p": written.detach().clone()}  # the very same values: copied, nevertheless
    loss = module.p.sum() * 2 + module.q.sum() * 3 + ((written * written).sum() if saved else 0)

    module.load_state_dict(state, strict=False)

    if saved:
        with raises(RuntimeError, "modified by an inplace operation", why="it was saved for backward"):
            loss.backward()
        same(written.grad, None, why="its gradient can't be computed any more")
    else:
        loss.backward()
        same(module.p.grad, torch.full_like(module.p, 2), why="p wasn't saved")
        same(module.q.grad, torch.full_like(module.q, 3), why="q wasn't saved")


UNFIT = {
    "a key is missing": (lambda state, name: state.pop(name), "Missing key"),
    "a key is unexpected": (lambda state, name: state.update(unexpected=torch.ones(1)), "Unexpected key"),
    "a shape differs": (lambda state, name: state.update({name: torch.ones(2, 7, 2)}), "size mismatch"),
    "an entry is no tensor": (lambda state, name: state.update({name: 3}), "torch.Tensor"),
}


@claim(cites=["torch_nn/strict-loading-wants-the-same-keys", "torch_nn/load-state-dict-keeps-properties"])
@given(
    net=networks(),
    unfit=st.sampled_from([*UNFIT]),
    choice=st.integers(0, 7),
    frozen=st.integers(0, 255),
    recording=st.booleans(),
)
def spec_a_state_that_does_not_fit_is_refused(world, net, unfit, choice, frozen, recording):
    """load_state_dict() of a state with a key too many or too few, another shape or what is no tensor raises an
    error. Parameters keep their identity, flags and gradients, and one that doesn't fit keeps its values."""
    module, parameters, _ = net.build(world)
    before = marked(parameters, frozen, 3)
    name = list(parameters)[choice % len(parameters)]
    spoil, telling = UNFIT[unfit]
    state = {key: t.clone() for key, t in module.state_dict().items()}
    spoil(state, name)
    y = module(world.leaf(net.input))

    with torch.set_grad_enabled(recording):
        with raises(RuntimeError, telling, why=unfit):
            module.load_state_dict(state)

    for key, (p, requires_grad, grad, old, _) in before.items():
        same(module.get_parameter(key) is p, True, why=f"{key} is the module's parameter")
        same((p.requires_grad, p.is_leaf, p.grad is grad), (requires_grad, True, True), why="flags aren't loaded")
        same([p, p.grad], [old, torch.full_like(p, 3)], why="what was to be loaded are the values that it had")
    same(module(world.constant(net.input)), y.detach(), why="the module computes what it did")


@claim(observed=True)
@given(net=networks(), strict=st.booleans(), choice=st.integers(0, 7), unfit=st.sampled_from([*UNFIT][:2]))
def spec_what_fits_is_loaded_from_a_state_that_does_not(world, net, strict, choice, unfit):
    """From a state with a key too many or too few load_state_dict() loads all that fits, also with strict=True, which
    raises its error afterwards; strict=False gives the names instead. A parameter not in the state is as before."""
    module, parameters, _ = net.build(world)
    shared = len(parameters) < len(module.state_dict())
    before = marked(parameters, 0, None)
    name = list(parameters)[choice % len(parameters)]
    spoil, telling = UNFIT[unfit]
    state = {key: 2 - t for key, t in module.state_dict().items()}
    spoil(state, name)

    if strict:
        with raises(RuntimeError, telling, why=unfit):
            module.load_state_dict(state)
    else:
        result = module.load_state_dict(state, strict=False)
        missing, unexpected = ([name], []) if telling == "Missing key" else ([], ["unexpected"])
        same(result.missing_keys, missing, why=unfit)
        same(result.unexpected_keys, unexpected, why=unfit)

    for key, (p, _, _, old, _) in before.items():
        kept = key == name and telling == "Missing key" and not shared  # a shared one has a second name
        if not (key == name and shared):
            same(p, old if kept else 2 - old, why=f"{key} is {'not ' if kept else ''}in the state")
        same((p.is_leaf, p.requires_grad, p.grad_fn), (True, True, None), why="nothing was recorded")


def assigned(module, kinds, dtype):
    """A state for the module, of new values and of another dtype, made in these ways, one tensor for each parameter."""
    tensors, made = module.state_dict(keep_vars=True), {}
    for p in tensors.values():
        kind = kinds[len(made) % len(kinds)]
        made.setdefault(id(p), STORED[kind]((2 - p.detach()).to(dtype)))
    return {name: made[id(p)] for name, p in tensors.items()}


SOURCES = st.lists(st.sampled_from([*STORED][:6]), min_size=1, max_size=3)


@claim(cites=["torch_nn/assign-takes-the-tensors-of-the-state"], since="2.1", needs=["float16"])
@given(net=networks(), kinds=SOURCES, recording=st.booleans(), same_dtype=st.booleans())
def spec_assign_makes_parameters_of_the_tensors_of_the_state(world, net, kinds, recording, same_dtype):
    """load_state_dict(assign=True) puts the tensors of the state in the parameters' places: a Parameter itself, any
    other as a new leaf over its memory, with its dtype. The former parameters are as before, with their gradients."""
    module, parameters, _ = net.build(world)
    before = marked(parameters, 0, 3)
    dtype = next(iter(parameters.values())).dtype if same_dtype else torch.float16
    state = assigned(module, kinds, dtype)

    with torch.set_grad_enabled(recording):
        module.load_state_dict(state, assign=True)

    for name, (old, requires_grad, grad, was, version) in before.items():
        p, t = module.get_parameter(name), state[name]
        same(p is old, False, why=f"{name} was replaced")
        same([p, p.data_ptr()], [t, t.data_ptr()], why="it has the memory of the state's tensor")
        if isinstance(t, torch.nn.Parameter):
            same(p is t, True, why="a Parameter is taken itself")
        same((p.is_leaf, p.grad_fn, p.grad), (True, None, None), why="it is a leaf, new in this module")
        same([old, old.grad is grad, old.requires_grad], [was, True, requires_grad], why="it was replaced, not changed")
        same(old._version, version, why="it was replaced, not changed")


@claim(
    cites=["torch_nn/assign-takes-the-tensors-of-the-state", "torch_nn/assign-keeps-requires-grad"],
    since="2.3",
)
@given(net=networks(), kinds=SOURCES, frozen=st.integers(0, 255))
def spec_assign_keeps_what_the_module_says_of_requires_grad(world, net, kinds, frozen):
    """A parameter that load_state_dict(assign=True) replaces hands down its requires_grad, whatever the state's
    tensor says: what was frozen is frozen, and what wasn't gets gradients."""
    module, parameters, _ = net.build(world)
    before = marked(parameters, frozen, None)
    dtype = next(iter(parameters.values())).dtype
    state = assigned(module, kinds, dtype)

    module.load_state_dict(state, assign=True)

    replaced = {name: module.get_parameter(name) for name in before}
    for name, (_, requires_grad, _, _, _) in before.items():
        same(replaced[name].requires_grad, requires_grad, why=f"requires_grad of {name} is the module's")
    (world.leaf(net.input).sum() + sum((p * 2).sum() for p in replaced.values())).backward()
    for name, (old, requires_grad, _, _, _) in before.items():
        p = replaced[name]
        same(p.grad, torch.full_like(p, 2) if requires_grad else None, why=f"{name} is the module's parameter now")
        same(old.grad, None, why="the former one isn't used any more")


@claim(
    cites=["torch_nn/assign-takes-the-tensors-of-the-state", "torch_nn/assign-keeps-requires-grad"],
    since="2.1",
    until="2.3",
)
@given(net=networks(), kinds=SOURCES, frozen=st.integers(0, 255))
def spec_assign_takes_requires_grad_from_the_state(world, net, kinds, frozen):
    """With load_state_dict(assign=True) a Parameter of the state keeps its own requires_grad, and any other tensor
    becomes one that requires grad, also where the module's parameter was frozen."""
    module, parameters, _ = net.build(world)
    before = marked(parameters, frozen, None)
    state = assigned(module, kinds, next(iter(parameters.values())).dtype)

    module.load_state_dict(state, assign=True)

    for name in before:
        t = state[name]
        flag = t.requires_grad if isinstance(t, torch.nn.Parameter) else True
        same(module.get_parameter(name).requires_grad, flag, why=f"requires_grad of {name} is the state's")


CONVERSIONS = {
    "module.float()": (lambda m: m.float(), torch.float32),
    "module.double()": (lambda m: m.double(), torch.float64),
    "module.bfloat16()": (lambda m: m.bfloat16(), torch.bfloat16),
    "module.half()": (lambda m: m.half(), torch.float16),
    "module.to(torch.float32)": (lambda m: m.to(torch.float32), torch.float32),
    "module.to(dtype=torch.float64)": (lambda m: m.to(dtype=torch.float64), torch.float64),
    "module.to(torch.ones(1, dtype=torch.bfloat16))": (
        lambda m: m.to(torch.ones(1, dtype=torch.bfloat16, device=next(m.parameters()).device)),
        torch.bfloat16,
    ),
}


@claim(
    cites=["torch_nn/to-casts-parameters-and-buffers", "torch_nn/to-modifies-in-place"], needs=["float64", "bfloat16"]
)
@given(
    net=networks(),
    conversions=st.lists(st.sampled_from([*CONVERSIONS]), min_size=1, max_size=3),
    frozen=st.integers(0, 255),
    grad=st.sampled_from((None, 3)),
    recording=st.booleans(),
)
def spec_a_conversion_keeps_the_parameters_leaves(world, net, conversions, frozen, grad, recording):
    """Module.to() and its like give every parameter, in any grad mode, another dtype in place: it is the same leaf,
    shared as before, requires grad as before, and its .grad goes along. Of buffers only floating ones are cast."""
    module, parameters, _ = net.build(world)
    before = marked(parameters, frozen, grad)
    module.register_buffer("count", torch.tensor([1, 2], device=world.device))
    module.register_buffer("mean", torch.tensor([1.0, 2.0], device=world.device))

    for conversion in conversions:
        convert, dtype = CONVERSIONS[conversion]
        with torch.set_grad_enabled(recording):
            same(convert(module) is module, True, why=f"{conversion} returns the module")

        for name, (p, requires_grad, _, old, _) in before.items():
            same(module.get_parameter(name) is p, True, why=f"{name} was converted in place")
            same(p, old.to(dtype), why=f"{conversion} casts {name}")
            same((p.is_leaf, p.requires_grad, p.grad_fn), (True, requires_grad, None), why="it wasn't recorded")
            same(p.grad, None if grad is None else torch.full_like(p, grad), why=f"the .grad of {name} goes along")
        same((module.count.dtype, module.mean.dtype), (torch.int64, dtype), why="integers are left alone")
        same((module.mean.requires_grad, module.mean.grad_fn), (False, None), why="a buffer stays a constant")

    (world.leaf(net.input).sum() + sum((p * p).sum() for p in parameters.values()).to(torch.float32)).backward()
    for name, (p, requires_grad, _, old, _) in before.items():
        learned = 2 * old.to(dtype) if requires_grad else 0 * p.detach()
        expected = learned if grad is None else learned + grad
        same(p.grad, expected if requires_grad or grad else None, why=f"{name} is learned in its new dtype")


@claim(cites=["torch_nn/to-takes-floating-dtypes"])
@given(net=networks(), dtype=st.sampled_from(("int64", "int32", "uint8", "bool")), frozen=st.integers(0, 255))
def spec_a_module_is_not_converted_to_integers(world, net, dtype, frozen):
    """Module.to() of a dtype that is neither floating point nor complex raises an error, and every parameter is as it
    was, with its .grad."""
    module, parameters, _ = net.build(world)
    before = marked(parameters, frozen, 3)

    with raises(TypeError, "floating point or complex", why=f"{dtype} can't be learned"):
        module.to(getattr(torch, dtype))

    for name, (p, requires_grad, grad, old, version) in before.items():
        same(module.get_parameter(name) is p, True, why="nothing was converted")
        same([p, p.requires_grad, p.grad is grad], [old, requires_grad, True], why="nothing was converted")
        same([grad, p._version], [torch.full_like(p, 3), version], why="nothing was converted")


@claim(observed=True, needs=["float64", "bfloat16"])
@given(v=values(), saved=st.booleans(), converted=st.lists(st.sampled_from([*CONVERSIONS]), min_size=1, max_size=3))
def spec_a_graph_outlives_the_conversion_of_its_parameters(world, v, saved, converted):
    """A graph that was recorded before a module is converted to other dtypes can be differentiated afterwards, and
    gives the gradients at the values of that time."""
    module = torch.nn.Module()
    module.p = p = torch.nn.Parameter(world.constant(v))
    y = (p * p).sum() if saved else (p * 3).sum()

    for conversion in converted:
        CONVERSIONS[conversion][0](module)
    y.backward()

    old = world.constant(v).double()
    same(p.grad.double(), 2 * old if saved else torch.full_like(old, 3), why="nothing was changed in place")
    same((p.is_leaf, p.requires_grad), (True, True), why="a conversion keeps it a leaf")


@claim(observed=True)
@given(net=networks(), frozen=st.integers(0, 255), grad=st.sampled_from((None, 3)))
def spec_a_module_on_another_kind_of_device_has_new_parameters(world, net, frozen, grad):
    """Module.to() of a kind of device with another sort of memory, such as "meta", puts new parameters in the places
    of the old ones: leaves that require grad as those did, with a .grad there if they had one. The old ones stay."""
    module, parameters, _ = net.build(world)
    before = marked(parameters, frozen, grad)

    module.to("meta")
    for name, (old, requires_grad, old_grad, was, _) in before.items():
        p = module.get_parameter(name)
        flags = (p is old, isinstance(p, torch.nn.Parameter), p.is_leaf, p.requires_grad, p.device.type)
        same(flags, (False, True, True, requires_grad, "meta"), why=f"{name} is a new parameter there")
        where = None if p.grad is None else p.grad.device.type
        same(where, None if grad is None else "meta", why=".grad goes along")
        same([old, old.requires_grad, old.grad is old_grad], [was, requires_grad, True], why="the old one stays")


COPIES = {
    "copy.deepcopy(module)": lambda module: copy.deepcopy(module),
    "pickle.loads(pickle.dumps(module))": lambda module: pickle.loads(pickle.dumps(module)),
    "loaded(module)": lambda module: loaded(module),
}


def loaded(module):
    """A new module of the same kind, loaded with the state of the other."""
    other = copy.deepcopy(module)
    for p in other.parameters():
        p.data.zero_()
    other.load_state_dict(module.state_dict())
    return other


@claim(observed=True)
@given(
    v=values(layouts=WRITABLE),
    way=st.sampled_from([*COPIES]),
    frozen=st.integers(0, 7),
    grad=st.sampled_from((None, 3)),
    hooked=st.booleans(),
    recording=st.booleans(),
)
def spec_a_copy_of_a_module_learns_on_its_own(world, v, way, frozen, grad, hooked, recording):
    """A deep copy of a module, and one that was pickled, has leaves of its own: same values, shared among themselves as
    before, requires_grad as before, but no .grad and no tensor hooks. What either learns is no matter of the other."""
    first = torch.nn.ParameterList([torch.nn.Parameter(world.constant(v)), torch.nn.Parameter(world.constant(v) + 1)])
    module = torch.nn.Sequential(first, torch.nn.ParameterList([first[1]]), torch.nn.PReLU(1, device=world.device))
    parameters = dict(module.named_parameters())
    before = marked(parameters, frozen, grad)
    for p in parameters.values():
        if hooked and p.requires_grad and way.startswith("copy"):  # a hook that is a local function isn't pickled
            p.register_hook(lambda g: g * 10)
    with torch.set_grad_enabled(recording):
        other = COPIES[way](module)

    copies = dict(other.named_parameters())
    same(list(copies), list(parameters), why="the copy shares parameters where the original does")
    same(other[0][1] is other[1][0], True, why="the copy shares parameters where the original does")
    for name, (p, requires_grad, _, old, _) in before.items():
        q = copies[name]
        flags = (q is p, isinstance(q, torch.nn.Parameter), q.is_leaf, q.requires_grad, q.grad_fn, q.grad)
        same(flags, (False, True, True, requires_grad, None, None), why=f"{name} of the copy is a leaf of its own")
        same(q, old, why="it has the same values")
    (world.leaf(v).sum() + sum((q * 2).sum() for q in copies.values())).backward()
    for name, (p, requires_grad, old_grad, old, _) in before.items():
        q = copies[name]
        same(q.grad, torch.full_like(q, 2) if requires_grad else None, why="the copy has no hooks and no gradient yet")
        same([p, p.grad is old_grad], [old, True], why="the original is as it was")
        with torch.no_grad():
            q.fill_(9)
        same(p, old, why="both have memory of their own")


@claim(observed=True)
@given(v=values(), deep=st.booleans(), used=st.booleans())
def spec_a_module_that_holds_a_result_is_not_deep_copied(world, v, deep, used):
    """A deep copy of a module that holds a result that requires grad, as an attribute or a buffer, raises an error;
    module and result are as they were."""
    x = world.leaf(v)
    holder = torch.nn.Module()
    holder.p = torch.nn.Parameter(world.constant(v))
    if used:
        holder.register_buffer("last", x * holder.p)
    else:
        holder.last = x * holder.p
    module = torch.nn.Sequential(torch.nn.Sequential(holder)) if deep else holder
    with raises(RuntimeError, "created explicitly by the user", why="a copy would lose the history of the result"):
        copy.deepcopy(module)

    holder.last.sum().backward()
    same([x.grad, holder.p.grad], [holder.p.detach(), x.detach()], why="the graph is as it was")
