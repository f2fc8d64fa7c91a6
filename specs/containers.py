"""Buffers, lists and dictionaries of parameters, and parameters that get their shape later."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import claim, raises, same, values
from .kit.choices import some_of
from .kit.tensors import WRAPPED

BUFFERED = {
    "x": lambda x: x,
    "x.detach()": lambda x: x.detach(),
    "x * 2": lambda x: x * 2,
    "x > 0": lambda x: x > 0,
    "x.detach()[...]": lambda x: x.detach()[...],
    "None": lambda x: None,
}


@claim(
    cites=[
        "torch_nn/buffer-is-no-parameter",
        "torch_nn/buffers-iterates-all",
        "torch_nn/zero-grad-resets-all-parameters",
        "torch_nn/requires-grad-sets-the-parameters-flags",
    ]
)
@given(
    v=values(),
    kinds=st.lists(st.sampled_from([*BUFFERED]), min_size=1, max_size=4),
    deep=st.booleans(),
    flag=st.booleans(),
)
def spec_buffers_are_kept_as_they_are_and_left_alone(world, v, kinds, deep, flag):
    """A buffer is the very tensor that was registered, with its own requires_grad and history; it is among
    buffers() and never among parameters(), so requires_grad_() and zero_grad() of a module leave it alone."""
    inner = torch.nn.Module()
    module = torch.nn.Sequential(torch.nn.Sequential(inner)) if deep else inner
    inner.p = torch.nn.Parameter(world.constant(v))
    x = world.leaf(v)
    made = [BUFFERED[kind](x) for kind in kinds]
    for number, buffer in enumerate(made):
        inner.register_buffer(f"buffer{number}", buffer)
    before = [None if b is None else (b.requires_grad, b.is_leaf, b.grad_fn) for b in made]

    found = {id(b): b for b in made if b is not None}  # a tensor that is there twice counts once
    same([id(b) for b in module.buffers()], list(found), why="buffers() gives them in their order")
    same([id(p) for p in module.parameters()], [id(inner.p)], why="a buffer is no parameter")
    (x * 3 + inner.p * 2).sum().backward()
    module.requires_grad_(flag)
    module.zero_grad(set_to_none=flag)

    for number, buffer in enumerate(made):
        same(getattr(inner, f"buffer{number}") is buffer, True, why="the very tensor was registered")
        flags = None if buffer is None else (buffer.requires_grad, buffer.is_leaf, buffer.grad_fn)
        same(flags, before[number], why="requires_grad_() and zero_grad() are about parameters")
    same(x.grad, torch.full_like(x, 3), why="zero_grad() is about parameters, also where a buffer has a .grad")
    same(inner.p.requires_grad, flag, why="the parameter was switched")
    same(inner.p.grad, None if flag else torch.zeros_like(inner.p), why="the parameter's gradient was reset")


@claim(cites=["torch_nn/buffer-is-registered-when-assigned"], since="2.5")
@given(v=values(), persistent=st.booleans(), kind=st.sampled_from(("x.detach()", "x", "x > 0")), then=st.booleans())
def spec_assigning_a_buffer_registers_it(world, v, persistent, kind, then):
    """A torch.nn.Buffer assigned as an attribute of a module is one of its buffers and no parameter; it gets
    no gradient. A tensor assigned to the same name later takes its place."""
    module = torch.nn.Module()
    tensor = BUFFERED[kind](world.leaf(v)).detach()
    module.b = buffer = torch.nn.Buffer(tensor, persistent=persistent)
    if then:
        module.b = buffer = tensor.clone()

    same([b is buffer for b in module.buffers()], [True], why="it was assigned")
    same(list(module.parameters()), [], why="a buffer is no parameter")
    same(list(module.state_dict()), ["b"] if persistent else [], why=f"persistent={persistent} was told")
    same([buffer, buffer.requires_grad, buffer.is_leaf], [tensor, False, True], why="nobody asked for a gradient")
    x = world.leaf(v)
    (x * module.b).sum().backward()
    same(x.grad, tensor.to(x.dtype), why="a buffer is a constant for autograd")
    same(buffer.grad, None, why="a buffer doesn't require grad")


FILLED_LISTS = {
    "torch.nn.ParameterList(made)": lambda made: torch.nn.ParameterList(made),
    "torch.nn.ParameterList().extend(made)": lambda made: torch.nn.ParameterList().extend(made),
    "list.append(t) for t in made": lambda made: appended(torch.nn.ParameterList(), made),
    "list[i] = t for t in made": lambda made: replaced(torch.nn.ParameterList([None] * len(made)), made),
    "torch.nn.ParameterDict(made)": lambda made: torch.nn.ParameterDict({str(i): t for i, t in enumerate(made)}),
    "dict.update(made)": lambda made: updated(torch.nn.ParameterDict(), made),
    "dict[i] = t for t in made": lambda made: assigned(torch.nn.ParameterDict(), made),
}


def appended(holder, made):
    """The list with everything appended, one after the other."""
    for thing in made:
        holder.append(thing)
    return holder


def replaced(holder, made):
    """The list with everything assigned to its place."""
    for number, thing in enumerate(made):
        holder[number] = thing
    return holder


def updated(holder, made):
    """The dictionary updated with everything at once."""
    holder.update({str(number): thing for number, thing in enumerate(made)})
    return holder


def assigned(holder, made):
    """The dictionary with everything assigned to a key of its own."""
    for number, thing in enumerate(made):
        holder[str(number)] = thing
    return holder


@claim(
    cites=["torch_nn/parameter-lists-convert-tensors", "torch_nn/parameter-dicts-convert-tensors"],
)
@given(
    v=values(),
    way=st.sampled_from([*FILLED_LISTS]),
    kinds=st.lists(st.sampled_from([*WRAPPED, "'text'"]), min_size=1, max_size=4),
)
def spec_parameter_lists_and_dicts_make_parameters_of_tensors(world, v, way, kinds):
    """ParameterList and ParameterDict, however they are filled, keep a Parameter as it is and make one that requires
    grad of any other tensor, a leaf without history; both count as the module's. Other things stay what they are."""
    x = world.leaf(v)
    made = [WRAPPED[kind](x) if kind in WRAPPED else "text" for kind in kinds]
    module = torch.nn.Module()
    module.held = FILLED_LISTS[way](made)

    held = [module.held[i if "ist" in way else str(i)] for i in range(len(made))]
    for kind, thing, found in zip(kinds, made, held):
        if isinstance(thing, torch.nn.Parameter) or not isinstance(thing, torch.Tensor):
            same(found is thing, True, why=f"{kind} is kept as it is")
        else:
            flags = (isinstance(found, torch.nn.Parameter), found.is_leaf, found.requires_grad, found.grad_fn)
            same(flags, (True, True, True, None), why=f"{kind} is made a parameter")
            same([found, found.data_ptr()], [thing, thing.data_ptr()], why="it has the memory of the tensor")
    expected = [id(found) for found in held if isinstance(found, torch.Tensor)]
    same([id(p) for p in module.parameters()], expected, why="they are the module's parameters")
    loss = sum((found * 2).sum() for found in [*held, x] if isinstance(found, torch.Tensor))
    loss.backward()
    for found in held:
        if isinstance(found, torch.Tensor) and found is not x:
            same(found.grad, torch.full_like(found, 2) if found.requires_grad else None, why="each is a leaf")
    same(x.grad, torch.full_like(x, 2), why="x itself was used once")


UNINITIALIZED = {
    "p.shape": (lambda p: p.shape, RuntimeError),
    "p + 1": (lambda p: p + 1, ValueError),
    "torch.sum(p)": (lambda p: torch.sum(p), ValueError),
    "p.requires_grad_(False)": (lambda p: p.requires_grad_(False), ValueError),
    "p.backward()": (lambda p: p.backward(), ValueError),
}


@claim(
    cites=["torch_nn/uninitialized-parameter-holds-no-data", "torch_nn/uninitialized-parameter-becomes-a-parameter"],
    needs=["random"],
)
@given(
    v=values(shapes=((1, 2), (2, 3), (3, 1), (2, 2, 1))),
    refused=some_of(UNINITIALIZED, 3),
    optimized=st.booleans(),
    recording=st.booleans(),
)
def spec_a_lazy_layer_gets_parameters_when_it_is_called(world, v, refused, optimized, recording):
    """A lazy layer holds uninitialized parameters, leaves that require grad and that refuse to be used. The first
    call, in any grad mode, makes the same objects parameters with a shape; their gradients are those of any layer."""
    layer = torch.nn.LazyLinear(2, device=world.device)
    weight, bias = list(layer.parameters())
    for name in refused:
        use, error = UNINITIALIZED[name]
        with raises(error, "uninitialized parameter", why=f"{name} needs values"):
            use(weight)
    same((weight.is_leaf, weight.requires_grad, weight.grad_fn), (True, True, None), why="nothing was recorded")
    descent = torch.optim.SGD(layer.parameters(), lr=1.0) if optimized else None
    x = world.constant(v)
    layer.to(x.dtype)

    with torch.set_grad_enabled(recording):
        layer(x)
    same((layer.weight is weight, layer.bias is bias), (True, True), why="the same objects are initialized now")
    for p in (weight, bias):
        same(
            (p.is_leaf, p.requires_grad, p.grad_fn, p.grad),
            (True, True, None, None),
            why="how it was filled isn't recorded",
        )
    same((weight.shape, bias.shape), ((2, x.shape[-1]), (2,)), why="the input told the shape")
    layer(x).sum().backward()
    rows = x.reshape(-1, x.shape[-1])
    same(weight.grad, rows.sum(0).expand(2, -1), why="the weight is used for each row")
    same(bias.grad, torch.full_like(bias, len(rows)), why="the bias is used for each row")
    if optimized:
        expected = bias.detach() - bias.grad
        descent.step()
        same(bias, expected, why="the optimizer was given the same objects")
