"""Leaves: which tensors are leaves, which of them require grad, and what can become one."""

import itertools
import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import SMALL_DTYPES, claim, graphs, raises, same, values
from .kit.choices import some_of
from .kit.tensors import IDENTITIES, PLAIN

# Ways to make a tensor without an operation; x tells the shape, the dtype and the device, and nothing else.
FACTORIES = {
    "tensor": lambda x, **more: torch.tensor(x.tolist(), dtype=x.dtype, device=x.device, **more),
    "zeros": lambda x, **more: torch.zeros(x.shape, dtype=x.dtype, device=x.device, **more),
    "ones": lambda x, **more: torch.ones(x.shape, dtype=x.dtype, device=x.device, **more),
    "full": lambda x, **more: torch.full(x.shape, 3, dtype=x.dtype, device=x.device, **more),
    "empty": lambda x, **more: torch.empty(x.shape, dtype=x.dtype, device=x.device, **more),
    "empty_strided": lambda x, **more: torch.empty_strided((2, 3), (1, 2), dtype=x.dtype, device=x.device, **more),
    "rand": lambda x, **more: torch.rand(x.shape, dtype=x.dtype, device=x.device, **more),
    "randn": lambda x, **more: torch.randn(x.shape, dtype=x.dtype, device=x.device, **more),
    "randint": lambda x, **more: torch.randint(9, x.shape, dtype=x.dtype, device=x.device, **more),
    "arange": lambda x, **more: torch.arange(3, dtype=x.dtype, device=x.device, **more),
    "linspace": lambda x, **more: torch.linspace(0, 1, 3, dtype=x.dtype, device=x.device, **more),
    "eye": lambda x, **more: torch.eye(2, dtype=x.dtype, device=x.device, **more),
    "zeros_like": lambda x, **more: torch.zeros_like(x, **more),
    "ones_like": lambda x, **more: torch.ones_like(x, **more),
    "full_like": lambda x, **more: torch.full_like(x, 3, **more),
    "empty_like": lambda x, **more: torch.empty_like(x, **more),
    "rand_like": lambda x, **more: torch.rand_like(x, **more),
    "randn_like": lambda x, **more: torch.randn_like(x, **more),
    "new_tensor": lambda x, **more: x.new_tensor(x.tolist(), **more),
    "new_zeros": lambda x, **more: x.new_zeros(x.shape, **more),
    "new_ones": lambda x, **more: x.new_ones(x.shape, **more),
    "new_full": lambda x, **more: x.new_full(x.shape, 3, **more),
    "new_empty": lambda x, **more: x.new_empty(x.shape, **more),
}

# What the factories are shown: they are not to take over from it that it requires grad.
MODELS = {"a leaf": lambda x: x, "a result": lambda x: x * 2, "a constant": lambda x: x.detach()}

# Tensors made of a leaf.
KINDS = {
    **MODELS,
    "a view": lambda x: x[...],
    "a view of a constant": lambda x: x.detach()[...],
    "the second part": lambda x: torch.stack([x, x]).unbind()[1],
    "a Parameter": lambda x: torch.nn.Parameter(x.detach()),
}

# Attributes that tell where in the graph a tensor stands, with what somebody could want to put there.
READ_ONLY = {
    "is_leaf": (True, False),
    "grad_fn": (None,),
    "output_nr": (0, 1),
    "retains_grad": (True, False),
    "_version": (0, 7),
}

# Three tensors of one shape make one result.
OPERATIONS = {
    "a * b + c": lambda a, b, c: a * b + c,
    "a - b - c": lambda a, b, c: a - b - c,
    "torch.cat([a, b, c])": lambda a, b, c: torch.cat([t.reshape(-1) for t in (a, b, c)]),
    "torch.stack([a, b, c])": lambda a, b, c: torch.stack([a, b, c]),
    "torch.addcmul(a, b, c)": lambda a, b, c: torch.addcmul(a, b, c),
    "torch.lerp(a, b, c)": lambda a, b, c: torch.lerp(a, b, c),
    "torch.where(a > b, b, c) + a": lambda a, b, c: torch.where(a > b, b, c) + a,
    "torch.maximum(a, b) * c": lambda a, b, c: torch.maximum(a, b) * c,
    "sum((a, b, c))": lambda a, b, c: sum((a, b, c)),
    "torch.einsum('...,...,...->', a, b, c)": lambda a, b, c: torch.einsum("...,...,...->", a, b, c),
}

# Conversions to what x is already.
CONVERSIONS = {
    "x.to(x.dtype)": lambda x: x.to(x.dtype),
    "x.to(x.device)": lambda x: x.to(x.device),
    "x.to(x)": lambda x: x.to(x),
    "x.type(x.dtype)": lambda x: x.type(x.dtype),
    "x.type_as(x)": lambda x: x.type_as(x),
    "x.double() or x.float()": lambda x: x.double() if x.dtype == torch.float64 else x.float(),
    "torch.as_tensor(x)": lambda x: torch.as_tensor(x),
    "x.contiguous()": lambda x: x.contiguous() if x.is_contiguous() else x,
}

# Functions of x whose results are integers or booleans.
COUNTS = {
    "x > 0": lambda x: x > 0,
    "x == x": lambda x: x == x,
    "x.long()": lambda x: x.long(),
    "x.to(torch.int32)": lambda x: x.to(torch.int32),
    "x.bool()": lambda x: x.bool(),
    "x.argsort()": lambda x: x.reshape(-1).argsort(),
    "x.nonzero()": lambda x: x.nonzero(),
    "x.sort().indices": lambda x: x.reshape(-1).sort().indices,
    "x.long()[...]": lambda x: x.long()[...],
    "(x > 0).unsqueeze(0)": lambda x: (x > 0).unsqueeze(0),
    "x.argsort()[:1]": lambda x: x.reshape(-1).argsort()[:1],
    "x.isnan()": lambda x: x.isnan(),
}

# Ways to ask that a tensor of x's dtype requires grad.
REQUESTS = {
    "x.requires_grad_()": lambda x: x.requires_grad_(),
    "x.requires_grad = True": lambda x: setattr(x, "requires_grad", True),
    "torch.zeros": lambda x: torch.zeros(x.shape, dtype=x.dtype, device=x.device, requires_grad=True),
    "torch.ones_like": lambda x: torch.ones_like(x, requires_grad=True),
    "torch.tensor": lambda x: torch.tensor(x.tolist(), dtype=x.dtype, device=x.device, requires_grad=True),
    "x.new_ones": lambda x: x.new_ones(x.shape, requires_grad=True),
    "torch.nn.Parameter": lambda x: torch.nn.Parameter(x),
}

STEPS = {
    "an operation": lambda x: x * 1,
    "a view": lambda x: x[...],
    "clone": lambda x: x.clone(),
    "detach": lambda x: x.detach(),
    "requires_grad_": lambda x: x.requires_grad_(),
}


def set_requires_grad(x, flag, by_attribute):
    """Set the flag of x in one of the two ways there are."""
    if by_attribute:
        x.requires_grad = flag
    else:
        x.requires_grad_(flag)


@claim(
    cites=[
        "article/user-created-are-leaves",
        "torch_tensor/user-made-tensors-are-leaves",
        "torch_tensor/creation-does-not-require-grad-unless-asked",
    ],
    needs=["random"],
)
@given(factories=some_of(FACTORIES), model=st.sampled_from(list(MODELS)), v=values())
def spec_a_tensor_made_with_requires_grad_is_a_leaf(world, factories, model, v):
    """A tensor that a factory function makes with requires_grad=True is a leaf that requires grad, and
    it gets its gradient."""
    for factory in factories:
        x = FACTORIES[factory](MODELS[model](world.leaf(v)), requires_grad=True)

        same(x.requires_grad, True, why=f"{factory} was asked for it")
        same(x.is_leaf, True, why=f"{factory} is not an operation on other tensors")
        same(x.grad_fn, None, why=f"{factory} is not an operation on other tensors")
        (x * 2).sum().backward()
        same(x.grad, torch.full(x.shape, 2, dtype=x.dtype, device=x.device), why="the gradient of sum(2x) is 2")


@claim(
    cites=[
        "torch_tensor/creation-does-not-require-grad-unless-asked",
        "torch_tensor/no-requires-grad-is-leaf",
        "autograd_mechanics/requires-grad-is-false-by-default",
    ],
    needs=["random"],
)
@given(factories=some_of(FACTORIES), model=st.sampled_from(list(MODELS)), v=values())
def spec_a_tensor_does_not_require_grad_unless_asked(world, factories, model, v):
    """A tensor that a factory function makes without requires_grad, or with requires_grad=False, doesn't
    require grad, also if it is made in the likeness of one that does. It is a leaf all the same."""
    for factory, options in itertools.product(factories, ({}, {"requires_grad": False})):
        x = FACTORIES[factory](MODELS[model](world.leaf(v)), **options)

        same([x.requires_grad, x.is_leaf, x.grad_fn], [False, True, None], why=f"nobody asked {factory} for it")
    with raises(RuntimeError, "does not require grad", why="nothing was recorded"):
        (x * 2).sum().backward()
    same(x.grad, None, why="no backward could reach it")


@claim(cites=["torch_autograd/only-floating-point-and-complex"])
@given(
    v=values(),
    request=st.sampled_from(list(REQUESTS)),
    dtype=st.sampled_from([torch.int64, torch.bool, torch.uint8, torch.int32, torch.int8, torch.int16]),
)
def spec_integers_and_booleans_cannot_require_grad(world, v, request, dtype):
    """To ask that a tensor of integers or booleans requires grad raises an error, in whatever way one
    asks, and changes nothing."""
    x = world.constant(v).to(dtype)

    with raises(RuntimeError, "floating point", why=f"{dtype} can't be differentiated"):
        REQUESTS[request](x)

    same([x.requires_grad, x.is_leaf, x.grad], [False, True, None], why="the request was refused")


@claim(cites=["torch_autograd/only-floating-point-and-complex"], needs=["complex64"])
@given(v=values(dtypes=SMALL_DTYPES), request=st.sampled_from(list(REQUESTS)[:2]), imaginary=st.booleans())
def spec_floating_point_and_complex_tensors_can_require_grad(world, v, request, imaginary):
    """A tensor of any floating point dtype, or of complex numbers, can be asked to require grad."""
    x = world.constant(v)
    x = x.to(torch.complex64) if imaginary else x

    REQUESTS[request](x)

    same([x.requires_grad, x.is_leaf, x.grad_fn], [True, True, None], why=f"{x.dtype} can be differentiated")
    (x.real * 3).sum().backward()
    same(x.grad, torch.full_like(x, 3).detach(), why="the loss grows three times as fast as the real part")


@claim(
    cites=[
        "article/computed-are-non-leaves",
        "torch_tensor/no-requires-grad-is-leaf",
        "torch_tensor/results-that-require-grad-are-not-leaves",
        "autograd_mechanics/tracked-if-an-input-requires-grad",
        "leaf_tutorial/leaf-unless-an-input-requires-grad",
    ]
)
@given(v=values(), operation=st.sampled_from(list(OPERATIONS)))
def spec_a_result_is_a_leaf_if_no_input_requires_grad(world, v, operation):
    """The result of an operation requires grad, and is no leaf, if one of the inputs requires grad,
    whichever it is. If none does, the result doesn't either and is a leaf."""
    for asked in (0, 1, 2, None):
        inputs = [world.leaf(v) if number == asked else world.constant(v) for number in range(3)]

        result = OPERATIONS[operation](*inputs)

        recorded = asked is not None
        why = f"{operation}, and of the inputs number {asked} requires grad"
        same(result.requires_grad, recorded, why=why)
        same([result.is_leaf, result.grad_fn is None], [not recorded, not recorded], why=why)
        same([x.is_leaf for x in inputs], [True] * 3, why="the inputs stay what they were")


@claim(
    cites=[
        "article/computed-are-non-leaves",
        "torch_tensor/user-made-tensors-are-leaves",
        "autograd_mechanics/non-leaves-require-grad",
    ]
)
@given(graph=graphs())
def spec_results_are_leaves_only_far_from_tensors_that_require_grad(world, graph):
    """However deep a graph is, a result in it is no leaf, has a grad_fn and requires grad if it depends on
    a tensor that requires grad; if it doesn't, it is a leaf that doesn't require grad."""
    tensors = graph.build(world)

    for name, tensor in tensors.items():
        recorded = name in graph.results
        same(tensor.requires_grad, recorded or name in graph.leaves, why=f"{name} in {graph}")
        same([tensor.is_leaf, tensor.grad_fn is None], [not recorded, not recorded], why=f"{name} in {graph}")


@claim(
    cites=[
        "torch_tensor/results-that-require-grad-are-not-leaves",
        "torch_tensor/only-leaves-get-grad",
        "article/computed-are-non-leaves",
    ],
    needs=["float16"],
)
@given(v=values(), operation=st.sampled_from(list(IDENTITIES)), parameter=st.booleans())
def spec_not_even_a_copy_of_a_leaf_is_a_leaf(world, v, operation, parameter):
    """A copy, a cast or a view of a leaf that requires grad, a Parameter too, requires grad as well but is
    no leaf: the gradient goes to the original, in the original's dtype."""
    x = torch.nn.Parameter(world.constant(v)) if parameter else world.leaf(v)

    copy = IDENTITIES[operation](x)

    same([copy.requires_grad, copy.is_leaf, copy.grad_fn is None], [True, False, False], why=f"it is {operation}")
    same([x.requires_grad, x.is_leaf, x.grad_fn], [True, True, None], why="x is what it was")
    (copy * 2).sum().backward()
    same(copy.grad, None, why="it is no leaf")
    same(x.grad, torch.full_like(x, 2).detach(), why="the gradient of sum(2x) is 2")


@claim(cites=["torch_tensor/conversion-without-change-returns-the-tensor"])
@given(v=values(), conversion=st.sampled_from(list(CONVERSIONS)), parameter=st.booleans())
def spec_a_conversion_that_changes_nothing_gives_the_leaf_itself(world, v, conversion, parameter):
    """A conversion of a leaf to what it is already gives the leaf itself, not a result."""
    x = torch.nn.Parameter(world.constant(v)) if parameter else world.leaf(v)
    y = CONVERSIONS[conversion](x)

    same(y is x, True, why=f"{conversion} has nothing to do")
    same([y.is_leaf, y.requires_grad], [True, True], why="it is the leaf")


@claim(
    cites=[
        "torch_autograd/only-floating-point-and-complex",
        "torch_tensor/no-requires-grad-is-leaf",
        "leaf_tutorial/requires-grad-spreads-with-two-exceptions",
    ]
)
@given(v=values(), count=st.sampled_from(list(COUNTS)))
def spec_integers_and_booleans_computed_from_a_leaf_are_leaves(world, v, count):
    """Integers and booleans are leaves that don't require grad, also if they are computed from a tensor that does."""
    result = COUNTS[count](world.leaf(v))

    same([result.requires_grad, result.is_leaf, result.grad_fn], [False, True, None], why=f"it is {result.dtype}")


@claim(
    cites=[
        "torch_tensor/requires-grad-in-place-sets-the-flag",
        "autograd_mechanics/only-leaves-that-require-grad-accumulate",
    ]
)
@given(v=values(), settings=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=5))
def spec_requires_grad_of_a_leaf_can_be_changed_at_any_time(world, v, settings):
    """requires_grad of a leaf can be turned on and off as often as one likes. It counts for what is done
    afterwards; the .grad that is there stays."""
    x, other = world.constant(v), world.leaf(v)

    seen = None
    for flag, by_attribute in settings:
        set_requires_grad(x, flag, by_attribute)
        same([x.requires_grad, x.is_leaf, (x * 2).requires_grad], [flag, True, flag], why=f"it was set to {flag}")
        (x * 2 + other).sum().backward()
        seen = (seen or 0) + 2 if flag else seen
        expected = None if seen is None else torch.full_like(x, seen).detach()
        same(x.grad, expected, why=f"requires_grad was set in turn, as in {settings}")


@claim(
    cites=[
        "autograd_mechanics/only-leaves-that-require-grad-accumulate",
        "autograd_mechanics/tracked-if-an-input-requires-grad",
    ]
)
@given(v=values(), recorded=st.booleans(), required=st.booleans(), by_attribute=st.booleans())
def spec_a_leaf_must_require_grad_in_both_passes_to_get_one(world, v, recorded, required, by_attribute):
    """A leaf gets a gradient only if it required grad when the operation ran and still does when
    backward runs. The gradients of other leaves don't depend on that."""
    x, other = world.constant(v), world.leaf(v)
    x.requires_grad_(recorded)
    loss = (x * other * 2).sum()

    set_requires_grad(x, required, by_attribute)
    loss.backward()

    why = f"requires_grad was {recorded} in the forward pass and {required} in the backward pass"
    same(x.grad, 2 * other.detach() if recorded and required else None, why=why)
    same(other.grad, 2 * x.detach(), why="the other factor always required grad")


@claim(
    cites=[
        "autograd_mechanics/requires-grad-is-set-on-leaves-only",
        "autograd_mechanics/non-leaves-require-grad",
        "leaf_tutorial/requires-grad-does-nothing-to-non-leaves",
    ],
    needs=["float16"],
)
@given(v=values(), operation=st.sampled_from(list(IDENTITIES)), by_attribute=st.booleans(), flag=st.booleans())
def spec_requires_grad_of_a_result_cannot_be_turned_off(world, v, operation, by_attribute, flag):
    """A tensor that is no leaf always requires grad. requires_grad_() has nothing to do, but to turn it off, or to set
    the attribute, even to True, raises an error and changes nothing."""
    x = world.leaf(v)
    y = IDENTITIES[operation](x)
    history = y.grad_fn

    if flag and not by_attribute:
        same([y.requires_grad_() is y, y.requires_grad_(True) is y], [True, True], why="it returns the tensor")
    else:
        with raises(RuntimeError, "you can only change requires_grad flags of leaf variables", why=f"y is {operation}"):
            set_requires_grad(y, flag, by_attribute)

    same([y.requires_grad, y.is_leaf, y.grad_fn is history], [True, False, True], why="nothing was changed")
    (y * 2).sum().backward()
    same(x.grad, torch.full_like(x, 2).detach(), why="the graph is whole")


@claim(observed=True)
@given(
    v=values(),
    wrong=st.sampled_from([None, 0, 1, 1.0, "True", (), (True,)]),
    by_attribute=st.booleans(),
    recorded=st.booleans(),
    required=st.booleans(),
)
def spec_requires_grad_is_true_or_false_and_nothing_else(world, v, wrong, by_attribute, recorded, required):
    """requires_grad can't be set to anything but True or False, not even to 1 or None: that raises an error and
    changes nothing."""
    x = world.constant(v).requires_grad_(required)
    x = x * 1 if recorded else x
    before = [x.requires_grad, x.is_leaf, x.grad_fn]

    with raises(RuntimeError if by_attribute else TypeError, "must be a bool", "must be bool", why=f"it is {wrong!r}"):
        set_requires_grad(x, wrong, by_attribute)

    same([x.requires_grad, x.is_leaf, x.grad_fn], before, why="nothing was changed")


@claim(observed=True)
@given(
    v=values(), kind=st.sampled_from(list(KINDS)), attribute=st.sampled_from(list(READ_ONLY)), value=st.integers(0, 3)
)
def spec_the_place_of_a_tensor_in_the_graph_cannot_be_assigned(world, v, kind, attribute, value):
    """What tells the place of a tensor in the graph, such as is_leaf and grad_fn, can neither be set nor deleted: that
    raises an error and changes nothing."""
    x = KINDS[kind](world.leaf(v))
    before = [getattr(x, name) for name in READ_ONLY]

    for value in READ_ONLY[attribute]:
        with raises(AttributeError, "not writable", why=f"x is {kind}"):
            setattr(x, attribute, value)
    with raises(AttributeError, "not writable", why=f"x is {kind}"):
        delattr(x, attribute)

    same([getattr(x, name) for name in READ_ONLY], before, why=f"{attribute} could not be set")


@claim(
    cites=[
        "torch_tensor/user-made-tensors-are-leaves",
        "torch_tensor/no-requires-grad-is-leaf",
        "torch_tensor/detach-leaves-the-graph",
    ]
)
@given(v=values(), steps=st.lists(st.sampled_from(list(STEPS)), min_size=1, max_size=8))
def spec_a_tensor_is_a_leaf_exactly_if_it_has_no_grad_fn(world, v, steps):
    """Whatever is done to get a tensor, it is a leaf exactly if its grad_fn is None; and it has a grad_fn
    exactly if it is the result of an operation on a tensor that requires grad."""
    x = origin = world.constant(v)

    required = recorded = False
    for step in steps:
        x = STEPS[step](x)
        if step == "requires_grad_":
            origin = origin if required else x
            required = True
        elif step == "detach":
            required = recorded = False
        else:
            recorded = required
        same([x.requires_grad, x.is_leaf, x.grad_fn is None], [required, not recorded, not recorded], why=str(steps))

    if required:
        (x * 2).sum().backward()
        same(origin.grad, torch.full_like(x, 2).detach(), why="that is where the graph begins")


@claim(
    cites=["autograd_mechanics/requires-grad-is-false-by-default", "torch_tensor/user-made-tensors-are-leaves"],
    needs=["float16"],
)
@given(v=values(), source=st.sampled_from([*PLAIN, *IDENTITIES]), mode=st.booleans())
def spec_a_parameter_is_a_leaf(world, v, source, mode):
    """A Parameter is a leaf over the values that it was made of, whatever their history and in whatever
    grad mode. It requires grad unless made with requires_grad=False."""
    for options in ({}, {"requires_grad": True}, {"requires_grad": False}):
        x = world.leaf(v)
        y = {**PLAIN, **IDENTITIES}[source](x)

        with torch.set_grad_enabled(mode):
            p = torch.nn.Parameter(y, **options)

        asked = options.get("requires_grad", True)
        same([p.requires_grad, p.is_leaf, p.grad_fn], [asked, True, None], why=f"it was made of {source}, {options}")
        same([p, p.data_ptr()], [y, y.data_ptr()], why="it is the same memory")
        (p * 2 + x.sum()).sum().backward()
        same(p.grad, torch.full_like(y, 2).detach() if asked else None, why="the gradient of sum(2p) is 2")
        same(x.grad, torch.full_like(x, p.numel()).detach(), why="only the sum of x depends on x")


@claim(
    cites=[
        "article/computed-are-non-leaves",
        "article/frozen-module-still-passes-input-grad",
        "autograd_mechanics/freezing-a-module-excludes-its-parameters",
    ],
    needs=["random"],
)
@given(
    sizes=st.lists(st.integers(1, 3), min_size=2, max_size=4),
    batch=st.sampled_from([(), (1,), (3,)]),
    bias=st.booleans(),
    asked=st.booleans(),
    thawed=st.one_of(st.none(), st.integers(0, 5)),
)
def spec_the_output_of_a_frozen_module_is_a_leaf_if_the_input_requires_no_grad(
    world, sizes, batch, bias, asked, thawed
):
    """The output of a module is no leaf if the input or one of the parameters requires grad. If the module
    is frozen and the input doesn't require grad, the output is a leaf."""
    layers = [torch.nn.Linear(n, m, bias=bias, device=world.device) for n, m in itertools.pairwise(sizes)]
    module = torch.nn.Sequential(*layers)
    with torch.no_grad():
        for p in module.parameters():
            p.fill_(1)
    module.requires_grad_(False)
    if thawed is not None:
        list(module.parameters())[thawed % len(list(module.parameters()))].requires_grad_()
    a = torch.ones(*batch, sizes[0], device=world.device, requires_grad=asked)

    c = module(a)

    recorded = asked or thawed is not None
    why = f"the input's requires_grad is {asked}, and the parameter that isn't frozen is {thawed}"
    same([c.requires_grad, c.is_leaf, c.grad_fn is None], [recorded, not recorded, not recorded], why=why)
    if asked:
        c.sum().backward()
        same(a.grad, torch.full_like(a, math.prod(sizes[1:])).detach(), why="each weight is 1")
