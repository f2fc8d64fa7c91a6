"""Deliberate breakages of autograd, to prove that each claim can fail.

A fault is a context manager: autograd is broken inside its block and whole again behind it. Faults
are pure: what one does depends on nothing but the arguments and the state of the tensors at hand,
or Hypothesis would see an example fail once and pass the next time.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from specs import CHAPTERS


@dataclass(frozen=True)
class Fault:
    """A named breakage: what it does to autograd, and the claims that must notice it."""

    name: str
    says: str
    breaks: tuple[str, ...]
    installed: Callable[[], contextlib.AbstractContextManager[None]]


FAULTS: dict[str, Fault] = {}


def fault(*breaks: str) -> Callable[[Callable[[], Iterator[None]]], Callable[[], Iterator[None]]]:
    """Make the generator below, which breaks autograd until it is resumed, a fault that breaks these claims."""

    def decorate(function: Callable[[], Iterator[None]]) -> Callable[[], Iterator[None]]:
        says = " ".join((function.__doc__ or "").split())
        if function.__name__ in FAULTS or not says:
            raise ValueError(f"fault {function.__name__}: its name is taken, or it doesn't say what it does")
        FAULTS[function.__name__] = Fault(function.__name__, says, breaks, contextlib.contextmanager(function))
        return function

    return decorate


@contextlib.contextmanager
def patched(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Put `make(the original)` in the place of an attribute of a module or class.

    CPython doesn't undo all of it: once `__getitem__` was patched, torch.tensor() refuses a list of 0-dim tensors.
    """
    own = vars(owner).get(name)
    setattr(owner, name, make(getattr(owner, name)))
    try:
        yield
    finally:
        delattr(owner, name) if own is None else setattr(owner, name, own)


@contextlib.contextmanager
def reading(name: str, spoil: Callable[[torch.Tensor, Any], Any]) -> Iterator[None]:
    """Let reading the attribute `name` of a tensor give `spoil(tensor, its true value)`."""
    true = getattr(torch._C._TensorBase, name)

    def get(tensor: torch.Tensor) -> Any:
        return spoil(tensor, true.__get__(tensor))

    with patched(torch.Tensor, name, lambda _: property(get, true.__set__, true.__delete__)):
        yield


@contextlib.contextmanager
def wrong_kernel(
    operator: str,
    gradient: Callable[..., tuple],
    forward: Callable[..., Any] = lambda true, *args, **options: true(*args, **options),
) -> Iterator[None]:
    """Replace what autograd does for `operator`, such as mul.Tensor, on the CPU.

    forward(true, *args, **options) gives the result, where `true` is the operator without autograd;
    gradient(cotangent, *args, **options) gives the cotangents of the first arguments; those of arguments that
    are no tensors are left out, and one of a broadcast argument is summed to its shape.
    """
    name, _, overload = operator.partition(".")
    true = getattr(getattr(torch.ops.aten, name), overload or "default")

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, options, *args):
            # Saved as the true kernel saves them: they are freed, checked and not kept alive by anything else.
            ctx.save_for_backward(*(a if isinstance(a, torch.Tensor) else None for a in args))
            ctx.options, ctx.others = options, [None if isinstance(a, torch.Tensor) else a for a in args]
            with torch._C._AutoDispatchBelowAutograd():
                return forward(true, *args, **options)

        @staticmethod
        def backward(ctx, cotangent):
            pairs = zip(ctx.saved_tensors, ctx.others, strict=True)
            args = [other if saved is None else saved for saved, other in pairs]
            given = itertools.zip_longest(args, gradient(cotangent, *args, **ctx.options))
            return None, *(
                g.sum_to_size(a.shape) if isinstance(a, torch.Tensor) and g is not None else None for a, g in given
            )

    library = torch.library.Library("aten", "IMPL")
    library.impl(operator, lambda *args, **options: Wrong.apply(options, *args), "AutogradCPU")
    try:
        yield
    finally:
        library._destroy()


def leaves_below(roots: Any) -> list[torch.Tensor]:
    """The leaves that a backward from the root, or the roots, reaches."""
    roots = [roots] if isinstance(roots, torch.Tensor) else list(roots)
    leaves = [root for root in roots if root.is_leaf and root.requires_grad]
    nodes = [root.grad_fn for root in roots if root.grad_fn]
    seen = set()
    while nodes:
        node = nodes.pop()
        if node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        nodes.extend(below for below, _ in node.next_functions if below)
    return list({id(leaf): leaf for leaf in leaves}.values())


@contextlib.contextmanager
def after_backward(spoil: Callable[[torch.Tensor, torch.Tensor | None], None]) -> Iterator[None]:
    """After each backward call `spoil(leaf, a copy of the .grad that it had before)` for each leaf reached."""

    def make(true: Callable[..., None]) -> Callable[..., None]:
        def backward(tensors, *args, **kwargs):
            before = [(leaf, None if leaf.grad is None else leaf.grad.clone()) for leaf in leaves_below(tensors)]
            true(tensors, *args, **kwargs)
            with torch.no_grad():
                for leaf, grad in before:
                    spoil(leaf, grad)

        return backward

    with patched(torch.autograd, "backward", make):
        yield


for _chapter in CHAPTERS:
    if importlib.util.find_spec(f"{__name__}.{_chapter}"):
        importlib.import_module(f"{__name__}.{_chapter}")
