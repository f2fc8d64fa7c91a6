"""The engine: how gradients go from roots to targets, and what they leave behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .scalars import Scalar, gradients, number_of
from .statements import (
    DETACHED,
    FREED,
    NO_GRAD_ROOT,
    NO_SCALAR,
    NOT_RETAINED,
    UNUSED,
    VIEW_WRITTEN,
    WRITTEN,
    Plan,
    Refused,
    check_exact,
)
from .tensors import Hook, Node, Parent, Tensor


@dataclass
class Sweep:
    """One way of gradients from roots to targets."""

    roots: list[tuple[Node, Sequence[float]]]
    passed: list[Node]  # the nodes that pass gradients on, children first
    reached: set[Node]  # these, and the targets that gradients come to
    ends: list[Node] = field(default_factory=list)  # nodes that gradients come to, and that are used up
    errors: list[str] = field(default_factory=list)
    surely: bool = False
    depends: dict[Node, set[Node]] = field(default_factory=dict)  # on what the gradient by a node depends


class Engine:
    """The part of a tape that carries gradients; a tape is one, with tensors and modes."""

    tensors: dict[str, Tensor | None]
    inference: bool

    def _backward(self, makes, *arguments) -> Plan:
        """Backward from roots: options are the numbers of roots and inputs among the tensors, the roots'
        cotangents (None for none), retain_graph and create_graph."""
        *tensors, roots, cotangents, retain, create = arguments
        starts, inputs = tensors[:roots], tensors[roots:]
        sweep = self._sweep(starts, cotangents, inputs or None, create, differentiated=False)
        if isinstance(sweep, Plan):
            return sweep
        asked = [t for t in inputs if not t.is_leaf]  # it retains gradients from now on
        for tensor in asked:
            if tensor.node in sweep.reached and tensor.node not in sweep.passed:
                sweep.ends.append(tensor.node)
                if any(parent.keeps != "nothing" for parent in tensor.node.parents):
                    sweep.errors += [FREED] * (tensor.node.freed != "no")
                sweep.errors += _spoiled(tensor.node)
        leaves = [node for node in sweep.reached if node.owner and node.owner.requires_grad]
        changed = {node.owner.grad.family.storage for node in leaves if node.owner.grad is not None}
        if any(saved.storage in changed for node in sweep.passed for saved in node.saved):
            sweep.errors += [WRITTEN, VIEW_WRITTEN]  # if .grad is added to before it is read
        targets = {node: node.owner for node in leaves if not inputs or node.owner in inputs}
        derivative, captured = self._derivatives(sweep, create)
        retaining = self._retaining(sweep, asked)

        def carry_out(raised: bool) -> None:
            for tensor in asked:
                tensor.retains_grad = tensor.node.retained = True
            received = [(node, tensor) for node, tensor in targets.items() if node in sweep.reached]
            received += [(tensor.retaining, tensor) for tensor in retaining]
            self._free(sweep, raised, retain)
            for node, tensor in received:
                if raised:
                    tensor.grad_known = False
                elif tensor.grad_known:
                    self._accumulate(tensor, derivative, node, sweep, create)
            self._show(captured, raised)

        self._check_sums(targets, retaining, derivative, sweep)
        return Plan(carry_out, tuple(sweep.errors), sweep.surely)

    def _grad(self, makes, *arguments) -> Plan:
        """The gradients of roots by inputs; options as for backward, and allow_unused."""
        *tensors, roots, cotangents, retain, create, allow_unused = arguments
        starts, inputs = tensors[:roots], tensors[roots:]
        if len(makes) != len(inputs) or len({id(t) for t in inputs}) < len(inputs):
            raise Refused("a name for each input")
        sweep = self._sweep(starts, cotangents, inputs, create, differentiated=True)
        if isinstance(sweep, Plan):
            return sweep
        unused = any(t.node not in sweep.reached for t in inputs) and not allow_unused
        if unused:
            sweep.errors.append(UNUSED)
            sweep.surely = True
        derivative, captured = self._derivatives(sweep, create)
        if any(t.retains_grad or (t.node and t.node.hooks and not t.is_leaf) for t in inputs):
            raise Refused("what hooks do to a result that is asked for")
        retaining = self._retaining(sweep, ())

        def carry_out(raised: bool) -> None:
            self._free(sweep, raised and not unused, retain)
            for tensor in retaining:
                if raised:
                    tensor.grad_known = False
                elif tensor.grad_known:
                    self._accumulate(tensor, derivative, tensor.retaining, sweep, create)
            self._show(captured, raised)
            if not raised:
                for name, tensor in zip(makes, inputs, strict=True):
                    used = tensor.node in sweep.reached
                    self.tensors[name] = (
                        self._gradient(tensor, derivative, tensor.node, sweep, create) if used else None
                    )

        return Plan(carry_out, tuple(sweep.errors), sweep.surely)

    def _sweep(
        self,
        starts: list[Tensor],
        cotangents: Sequence,
        inputs: list[Tensor] | None,
        create: bool,
        differentiated: bool,
    ) -> Sweep | Plan:
        """The way of the gradients, and the errors that may come up on it; a Plan if they don't set out at all.

        differentiated  whether it is for autograd.grad, which words its errors in its own way
        """

        def fails(error: str) -> Plan:
            return Plan(lambda raised: None, (error,), surely=True)

        if self.inference:
            raise Refused("backward in inference mode")
        if len(cotangents) != len(starts) or len({id(t) for t in starts}) < len(starts):
            raise Refused("a cotangent for each root")
        roots = []
        for start, cotangent in zip(starts, cotangents, strict=True):
            if cotangent is None and start.parts == 2:
                raise Refused("releases up to 2.0 take a complex number for a scalar")
            if cotangent is None and start.requires_grad and len(start.places) != 1:
                return fails(NO_SCALAR)
            if cotangent is not None and len(cotangent) != len(start.places):
                raise Refused("a cotangent of another shape")
        for start, cotangent in zip(starts, cotangents, strict=True):
            if not start.requires_grad or (start.view and start.is_leaf):
                return fails(NO_GRAD_ROOT)
            roots.append((start.node, [1] if cotangent is None else cotangent))
        for tensor in inputs or ():
            if not tensor.requires_grad:
                if len(inputs) > 1:
                    raise Refused("what becomes of the inputs before it")
                return fails(NO_GRAD_ROOT if differentiated else NOT_RETAINED)
            if tensor.is_leaf and tensor.view:
                raise Refused("a view whose gradients go nowhere")

        sweep = self._way(roots, {tensor.node for tensor in inputs or ()})
        for start in starts:
            if start.node not in sweep.reached and (start.node.hooks or start.retains_grad):
                raise Refused("whether hooks are called on a root from which no gradients go on")
        self._foresee_errors(sweep, create)
        return sweep

    @staticmethod
    def _way(roots: list[tuple[Node, Sequence[float]]], targets: set[Node]) -> Sweep:
        """The nodes between the roots and the targets, or all leaves if there are none."""
        reachable = {node for node, _ in roots}
        stack = list(reachable)
        while stack:
            for parent in stack.pop().parents:
                if parent.node not in reachable:
                    reachable.add(parent.node)
                    stack.append(parent.node)
        ordered = sorted(reachable, key=lambda node: node.order)
        wanted = targets or {node for node in ordered if not node.parents}
        leading = set()
        for node in ordered:
            if node in wanted or any(parent.node in leading for parent in node.parents):
                leading.add(node)
        passed = [node for node in reversed(ordered) if any(parent.node in leading for parent in node.parents)]
        for node in reachable | wanted:
            if node.owner and node.owner.family.node is not node and node.owner.family.node is not None:
                raise Refused("a leaf that became a result")
            if any((b.hooks or b.retained or b in wanted) and b not in reachable & leading for b in node.beside):
                raise Refused("what one of several results sees if gradients come to the others only")
        return Sweep(roots, passed, leading)

    def _foresee_errors(self, sweep: Sweep, create: bool) -> None:
        """What may be wrong on the way, judged by operations."""
        sweep.depends = {node: set() for node in sweep.reached}
        for node in sweep.passed:
            parents = [parent for parent in node.parents if parent.node in sweep.reached]
            if create and not (node.settled and node.scalars):  # nor does a gradient without elements matter
                raise Refused("on what its gradient depends is open")
            for parent in parents:
                if not parent.zeros:
                    reads = {read for read in parent.reads if not read.owner or read.owner.requires_grad}
                    sweep.depends[parent.node] |= sweep.depends[node] | reads
            keeps = {parent.keeps for parent in parents}
            if node.freed != "no" and keeps != {"nothing"}:
                sweep.errors.append(FREED)
                sweep.surely |= node.freed == "yes" and "something" in keeps
            if any(saved.written_unnoticed for saved in node.saved):
                raise Refused("what it kept was changed unnoticed")
            sweep.errors += _spoiled(node)

    def _derivatives(self, sweep: Sweep, create: bool) -> tuple[dict[Scalar, Any], list[tuple[Hook, list]]]:
        """The derivatives by all scalars on the way, with what hooks make of them, and what hooks see."""
        captured: list[tuple[Hook, list]] = []
        passing: dict[Scalar, Callable] = {}
        on_the_way = {*sweep.passed, *sweep.ends, *(node for node in sweep.reached if not node.parents)}
        for node in sweep.reached:
            hooks = [hook for hook in node.hooks if not hook.removed]
            if not hooks:
                continue
            if node not in on_the_way:
                raise Refused("whether a hook is called on a result that is itself asked for")
            seen = [(hook, [0] * len(node.scalars)) for hook in hooks if hook.factor is None]
            captured += seen
            for i, scalar in enumerate(node.scalars):
                passing[scalar] = _through(hooks, dict(seen), i)
        roots = [
            (scalar, weight)
            for node, weights in sweep.roots
            for scalar, weight in zip(node.scalars, weights, strict=True)
        ]
        derivative = gradients(roots, passing, create)
        check_exact(map(number_of, derivative.values()))
        return derivative, captured

    def _retaining(self, sweep: Sweep, asked: Iterable[Tensor]) -> list[Tensor]:
        """The tensors, no leaves, whose gradient is kept on the way, or asked for by backward."""
        tensors = dict.fromkeys([*asked, *(t for t in self.tensors.values() if t is not None and t.retains_grad)])
        return [t for t in tensors if t.requires_grad and t.retaining in sweep.reached]

    def _check_sums(self, targets, retaining, derivative, sweep) -> None:
        for node, tensor in [*targets.items(), *((t.retaining, t) for t in retaining)]:
            if tensor.grad is not None and tensor.grad_known and node in sweep.reached:
                pairs = zip(tensor.grad.numbers, node.scalars, strict=True)
                check_exact(old + number_of(derivative.get(s, 0)) for old, s in pairs)

    def _gradient(self, tensor: Tensor, derivative: dict, node: Node, sweep: Sweep, create: bool) -> Tensor:
        """The gradient by a node as a tensor; with create_graph one that may have a history."""
        values = [derivative.get(scalar, 0) for scalar in node.scalars]
        made = self._new(tensor.shape, tensor.dtype, [number_of(value) for value in values], borrowed=True)
        if create and sweep.depends[node]:
            scalars = tuple(v.times(1) if isinstance(v, Scalar) else Scalar(v) for v in values)
            parents = tuple(Parent(read, keeps="open") for read in sorted(sweep.depends[node], key=lambda n: n.order))
            saved = tuple(s for passed in sweep.passed for s in passed.saved)
            made.family.node = Node(scalars, parents, saved, settled=False)
        return made

    def _accumulate(self, tensor: Tensor, derivative: dict, node: Node, sweep: Sweep, create: bool) -> None:
        """Add the gradient to what .grad holds."""
        gradient = self._gradient(tensor, derivative, node, sweep, create)
        old = tensor.grad
        if old is None:
            tensor.grad = gradient
        elif create or tensor.retains_grad:
            tensor.grad = self._sum(old, gradient, recorded=create)
        else:
            family = old.family
            for place, number in zip(old.places, gradient.numbers, strict=True):
                family.storage.numbers[place] += number
            family.storage.writes += 1
            family.counter.version += 1

    def _sum(self, old: Tensor, new: Tensor, recorded: bool) -> Tensor:
        made = self._new(
            old.shape, old.dtype, [a + b for a, b in zip(old.numbers, new.numbers, strict=True)], borrowed=True
        )
        terms = [t for t in (old, new) if t.requires_grad]
        if recorded and terms:
            columns = zip(*(t.node.scalars for t in terms), strict=True)
            scalars = tuple(
                Scalar(number, tuple((s, 1) for s in column))
                for number, column in zip(made.numbers, columns, strict=True)
            )
            made.family.node = Node(scalars, tuple(Parent(t.node) for t in terms))
        return made

    @staticmethod
    def _free(sweep: Sweep, raised: bool, retain: bool) -> None:
        for node in (*sweep.passed, *sweep.ends):
            if not retain and node.freed != "yes":
                node.freed = "open" if raised else "yes"

    @staticmethod
    def _show(captured: list[tuple[Hook, list]], raised: bool) -> None:
        for hook, seen in captured:
            if raised:
                hook.known = False
            else:
                hook.seen.append(tuple(map(number_of, seen)))


def _spoiled(node: Node) -> list[str]:
    """The errors that may come of what became of the tensors that the node may have kept."""
    return [WRITTEN, VIEW_WRITTEN] * any(s.written for s in node.saved) + [*DETACHED] * any(
        s.detached for s in node.saved
    )


def _through(hooks: list[Hook], seen: dict[Hook, list], i: int) -> Callable[[Any], Any]:
    """What becomes of one scalar's derivative in hooks, in the order of their registration."""

    def passed(value: Any) -> Any:
        for hook in hooks:
            if hook.factor is None:
                seen[hook][i] = value
            else:
                value = value * hook.factor
        return value

    return passed
