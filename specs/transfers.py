"""What goes from device to device as a whole: pinned memory, saved tensors, modules and their optimizers."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd.graph import save_on_cpu

from .devices import PLACE, places
from .kit import NONEMPTY, claim, same, values
from .kit.choices import some_of
from .kit.modules import networks
from .saved_tensors import EXACT, READABLE


@claim(cites=["cuda_semantics/pinned-memory-is-copied-from-without-waiting"], needs=["pinned-memory"])
@given(v=values(shapes=NONEMPTY), required=st.booleans(), waits=st.booleans(), factor=st.integers(-3, 3))
def spec_the_gradient_of_a_pinned_copy_goes_to_what_was_pinned(world, v, required, waits, factor):
    """pin_memory() gives a copy in pinned memory. Of a tensor that requires grad it is a result, and what is computed
    on a device from it, copied with non_blocking=True or without, passes its gradient on to the tensor itself."""
    x = world.constant(v).cpu().requires_grad_(required)

    pinned = x.pin_memory()
    same([pinned.requires_grad, pinned.is_leaf], [required, not required], why="it is an operation")
    same(pinned.detach(), x.detach(), why="it has the numbers of x")
    same([pinned.is_pinned(), x.is_pinned()], [True, False], why="it is a copy in pinned memory")
    if not required:
        pinned.requires_grad_()
    (pinned.to(world.device, non_blocking=not waits) * factor).sum().backward()

    gradient = torch.full_like(x, factor).detach()
    same(x.grad, gradient if required else None, why="pinning is recorded if x requires grad")
    same(pinned.grad if not required else None, None if required else gradient, why="or else the copy is a leaf")


@claim(cites=["cuda_semantics/pinned-memory-is-copied-from-without-waiting"], needs=["pinned-memory"])
@given(v=values(shapes=NONEMPTY), again=st.integers(1, 3))
def spec_a_tensor_that_is_pinned_is_not_pinned_again(world, v, again):
    """pin_memory() of a tensor that lies in pinned memory gives the tensor itself, also if it requires grad."""
    pinned = world.constant(v).cpu().pin_memory().requires_grad_()
    for _ in range(again):
        same(pinned.pin_memory() is pinned, True, why="it is pinned")
    (pinned * 2).sum().backward()
    same(pinned.grad, torch.full_like(pinned, 2).detach(), why="it is a leaf")


@claim(cites=["torch_autograd/save-on-cpu-keeps-saved-tensors-on-the-cpu"], needs=["accelerator"])
@given(v=values(dtypes=EXACT), codes=some_of(READABLE), place=PLACE)
def spec_save_on_cpu_brings_what_was_saved_back_to_its_device(world, v, codes, place):
    """save_on_cpu packs a copy on the CPU of each saved tensor that is on a device; what is read of it is a copy on
    that device, and a new one each time."""
    there = places(world.device)[place]
    x, w = [world.constant(v).to(there).requires_grad_() for _ in range(2)]

    for code in codes:
        operation, attributes = READABLE[code]
        with save_on_cpu():
            y = operation(x, w)
        for attribute, name in attributes.items():
            saved, original = getattr(y.grad_fn, attribute), {"x": x, "w": w, "y": y}[name]
            same(saved, original, why=f"{code} saved {name}")
            copied = place > 0 and original.numel() > 0
            same(saved.data_ptr() != original.data_ptr(), copied, why="it was on the CPU in between, or is there")
            again = getattr(y.grad_fn, attribute)
            same([again, again.data_ptr() != saved.data_ptr()], [original, copied], why=f"{code} saved {name}")
        y.sum().backward()  # or what packing left of y refers to the graph


@claim(cites=["torch_nn/to-moves-parameters-and-buffers"], needs=["accelerator"])
@given(net=networks(), path=st.lists(PLACE, min_size=1, max_size=3), frozen=st.integers(0, 255), grad=st.booleans())
def spec_a_module_that_moves_has_leaves_on_its_new_device(world, net, path, frozen, grad):
    """Module.to(device) puts all parameters there: they are Parameters and leaves as before, require grad if they did,
    and their .grad, if there is one, goes along."""
    module, parameters, _ = net.build(world)
    for number, p in enumerate(parameters.values()):
        p.requires_grad_(not (frozen >> number % 8) & 1)
        p.grad = torch.full_like(p, number).detach() if grad else None
    before = {name: (p.detach().cpu().clone(), p.requires_grad) for name, p in parameters.items()}

    for place in path:
        there = places(world.device)[place]
        same(module.to(there) is module, True, why="a module is changed itself")
        for number, (name, (old, required)) in enumerate(before.items()):
            p = module.get_parameter(name)
            flags = [type(p) is torch.nn.Parameter, p.is_leaf, p.requires_grad, p.device]
            same(flags, [True, True, required, there], why=f"{name} was moved to {there}")
            same(p.detach(), old.to(there), why="with its numbers")
            same(p.grad, torch.full_like(p, number).detach() if grad else None, why="and its gradient")


@claim(cites=["torch_nn/to-moves-parameters-and-buffers"], needs=["accelerator", "float64"])
@given(
    weights=st.lists(st.integers(-3, 3), min_size=4, max_size=4),
    path=st.lists(PLACE, min_size=1, max_size=3),
    passes=st.integers(1, 2),
)
def spec_layers_on_several_devices_learn_together(world, weights, path, passes):
    """The layers of a model may be on several devices, each given its input there: backward goes through all of them,
    and an optimizer of all parameters takes its step on each device."""
    there = places(world.device)
    layers = [torch.nn.Linear(1, 1, bias=False).double() for _ in path]
    for layer, weight, place in zip(layers, weights, path):
        layer.weight.data.fill_(weight)
        layer.to(there[place])
    sgd = torch.optim.SGD([layer.weight for layer in layers], lr=0.5)
    expected = [float(weight) for weight, _ in zip(weights, path)]

    for _ in range(passes):
        y = torch.ones(1, 1, dtype=torch.float64)
        for layer, place in zip(layers, path):
            y = layer(y.to(there[place]))
        sgd.zero_grad()
        y.sum().backward()
        sgd.step()

        slopes = [math.prod(expected[:n] + expected[n + 1 :]) for n in range(len(expected))]
        expected = [weight - 0.5 * slope for weight, slope in zip(expected, slopes)]
    for layer, weight, place in zip(layers, expected, path):
        same(layer.weight.item(), weight, why="the step takes half of the product of the other weights off")
        same(layer.weight.device, there[place], why="parameters stay where they are")
