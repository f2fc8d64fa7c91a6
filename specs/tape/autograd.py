"""Autograd as its users see it: what every statement of a program does, to the last flag.

`Tape.plan` says what PyTorch may answer to a statement, and changes nothing; `Plan.carry_out` then does
it. A statement whose effect the documentation leaves open, or that this model doesn't know, is Refused:
it can't stand in a program. These are the matters left open, each in one place:

- which tensors an operation keeps for backward (`operations.py`, `Parent.keeps`). A tensor that was
  written since may give an error or the right gradient; never a wrong gradient;
- what a backward that failed has done on the way: gradients of the leaves that it went to are unknown
  until they are cleared, and what it freed is open;
- where a version begins to count, and whether tensors that backward makes share memory: they aren't
  written in place (`Family.borrowed`);
- on what the gradient of a sign (relu, abs, ...) counts as depending, which only shows in derivatives of
  derivatives: there create_graph is refused (`Node.settled`);
- the gradients of what was changed unnoticed, through `.data`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from .arrays import size_of
from .engine import Engine
from .operations import OPERATIONS, Operation
from .scalars import Scalar
from .statements import (
    INFERENCE_SAVED,
    INFERENCE_WRITE,
    LEAF_WRITE,
    MODES,
    NOT_RETAINED,
    STATEMENTS,
    VIEW_WRITE,
    Plan,
    Refused,
    Statement,
    check_exact,
)
from .tensors import Counter, Family, Hook, Node, Parent, Saved, Storage, Tensor, flattened, placed

_REAL = {"float64", "float32"}
_RANK = {"int64": 0, "float32": 1, "float64": 2, "complex128": 3}


class Tape(Engine):
    """The state of a program: tensors by name, the modes that are on, hooks by name."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor | None] = {}  # None: a gradient that there wasn't
        self.hooks: dict[str, Hook] = {}
        self.grad_enabled = True
        self.inference = False
        self._modes: list[tuple[bool, bool]] = []

    @property
    def depth(self) -> int:
        """How many modes are entered."""
        return len(self._modes)

    def plan(self, statement: Statement) -> Plan:
        """What PyTorch may do at this statement. Raises Refused if the tape doesn't say."""
        operation = OPERATIONS.get(statement.does)
        if operation is None and statement.does not in STATEMENTS:
            raise Refused("there is no such statement")
        if operation is None:
            return getattr(self, "_" + statement.does)(*self._arguments(statement), *statement.options)
        operands = [self._tensor(name) for name in statement.of]
        if statement.of[0].endswith(".grad") and operation.kind != "result":
            raise Refused("the memory of a .grad is PyTorch's own affair")
        if len(operands) != operation.operands or any(t.dtype not in operation.dtypes for t in operands):
            raise Refused("not for these operands")
        if operation.kind in ("view", "several"):
            return self._view(operation, statement.makes, operands[0], statement.options)
        if operation.kind == "in place":
            return self._write(operation, operands, statement.options)
        return self._compute(operation, statement.makes[0], operands, statement.options)

    def run(self, statement: Statement) -> Plan:
        """Carry a statement out by itself, and give its plan. Raises Refused as `plan` does.

        Of an error that may come or not it is taken that it came: then less is certain afterwards.
        """
        plan = self.plan(statement)
        plan.carry_out(bool(plan.errors))
        return plan

    def _arguments(self, statement: Statement) -> list[Any]:
        return [statement.makes, *(self._tensor(name) for name in statement.of)]

    def _tensor(self, name: str) -> Tensor:
        holder, _, attribute = name.partition(".")
        tensor = self.tensors.get(holder)
        if tensor is not None and attribute:
            if not tensor.grad_known:
                raise Refused("a failed backward may have changed it")
            tensor = tensor.grad
        if tensor is None:
            raise Refused(f"there is no {name}")
        if tensor.spoiled:
            raise Refused("its history is spoiled")
        return tensor

    # New tensors

    def _new(
        self, shape: tuple[int, ...], dtype: str, numbers: list[float], node: Node | None = None, **about: Any
    ) -> Tensor:
        places = tuple(range(len(numbers)))
        family = Family(Storage(numbers), Counter(), places, node, inference=self.inference, **about)
        return Tensor(family, shape, places, dtype)

    def _leaf(self, makes, dtype, shape, numbers, requires_grad) -> Plan:
        if requires_grad and (self.inference or dtype == "int64"):
            raise Refused("no leaf here")
        if len(numbers) != size_of(shape) * (1 + (dtype == "complex128")) or dtype not in _RANK:
            raise Refused("the numbers don't fit the shape and dtype")
        check_exact(numbers)

        def carry_out(_: bool) -> None:
            tensor = self._new(shape, dtype, list(numbers), contiguous=True)
            if requires_grad:
                self._make_leaf(tensor)
            self.tensors[makes[0]] = tensor

        return Plan(carry_out)

    def _make_leaf(self, tensor: Tensor) -> None:
        family = tensor.family
        if family.leaf is None:  # it stays the same when it is frozen for a while, and keeps its hooks
            family.leaf = Node(tuple(map(Scalar, tensor.numbers)), owner=tensor)
        family.node = family.leaf

    def _compute(self, operation: Operation, name: str, operands: list[Tensor], parameters: tuple) -> Plan:
        dtype = _common_dtype(operation, operands, parameters)
        if operation.gives and (dtype == operands[0].dtype or operands[0].parts == 2):
            raise Refused("not a cast that makes a new tensor and loses nothing")
        recorded = self._recorded(operands) and dtype != "int64"
        elements = [t.elements(t.node.scalars if recorded and t.requires_grad else None) for t in operands]
        result = operation.rule(*elements, *parameters)
        if result is None:
            raise Refused("not for these shapes or numbers")
        scalars = flattened(result.scalars, dtype)
        numbers = [scalar.number for scalar in scalars]
        check_exact(numbers)
        if any(n % 1 for n in numbers) and dtype == "int64":
            raise Refused("not a whole number")
        keepers = self._keepers(operation, operands) if recorded else []
        if any(tensor.family.inference for tensor in keepers) and not self.inference:
            if operation.derivative != "others" or any(t.view and t.requires_grad and t.is_leaf for t in operands):
                raise Refused("whether it keeps an inference tensor is open")
            return Plan(lambda raised: None, (INFERENCE_SAVED,), surely=True)
        saved = tuple(map(Saved.of, keepers))

        def carry_out(_: bool) -> None:
            node = None
            tensor = self._new(result.shape, dtype, numbers, contiguous=operation.name == "contiguous")
            if recorded:
                kept = saved + ((Saved.of(tensor),) if operation.derivative == "signs" else ())
                node = Node(tuple(s.times(1) for s in scalars), self._parents(operation, operands), kept)
                node.settled = operation.derivative != "signs"
            tensor.family.node = node
            self.tensors[name] = tensor

        return Plan(carry_out)

    def _recorded(self, operands: Iterable[Tensor]) -> bool:
        return self.grad_enabled and not self.inference and any(t.requires_grad for t in operands)

    @staticmethod
    def _keepers(operation: Operation, operands: list[Tensor]) -> list[Tensor]:
        """The operands that the operation may keep."""
        if operation.derivative == "signs" or operation.keeps:
            return operands
        if operation.derivative != "others":
            return []
        if len(operands) == 1:
            return operands
        a, b = operands
        return [a] * b.requires_grad + [b] * a.requires_grad

    @staticmethod
    def _parents(operation: Operation, operands: list[Tensor]) -> tuple[Parent, ...]:
        """The nodes of the operands, each with what the gradient that goes to it depends on."""
        parents = []
        for i, operand in enumerate(operands):
            if operand.requires_grad:
                others = operands if len(operands) == 1 else operands[:i] + operands[i + 1 :]
                reads = tuple(t.node for t in others if t.requires_grad) if operation.derivative == "others" else ()
                keeps = {"nothing": "nothing", "positions": "open"}.get(operation.derivative, "something")
                parents.append(Parent(operand.node, reads, keeps=keeps))
        return tuple(parents)

    # Views

    def _view(self, operation: Operation, makes: Sequence[str], source: Tensor, parameters: tuple) -> Plan:
        family = source.family
        if operation.contiguous and not (family.contiguous and _in_order(source)):
            raise Refused("how it lies in memory is open")
        dtype = operation.gives(source.dtype, parameters) if operation.gives else source.dtype
        found = placed(source.shape, source.places, source.parts, lambda a: operation.rule(a, *parameters))
        if found is None:
            raise Refused("not for this shape")
        arrays = list(found) if operation.kind == "several" else [found]
        if len(arrays) != len(makes):
            raise Refused(f"it makes {len(arrays)} tensors")
        if any(len(array.scalars) > 24 for array in arrays):
            raise Refused("too many elements")
        parts = 2 if dtype.startswith("complex") else 1
        recorded = self.grad_enabled and not self.inference

        def carry_out(_: bool) -> None:
            node = source.node
            nodes = []
            for name, array in zip(makes, arrays, strict=True):
                within = [position + k for position in array.scalars for k in range(parts)]
                family.storage.seen_in_parts |= parts < source.parts
                made = Tensor(family, array.shape, tuple(source.places[i] for i in within), dtype)
                if self.inference:
                    made.view = "inference"
                elif not self.grad_enabled:
                    made.view = "no_grad"
                elif operation.kind == "several":
                    made.view = "several"
                else:
                    made.view = source.view or "recorded"
                made.at_version = family.counter.version
                if recorded and node is not None:
                    scalars = tuple(Scalar(node.scalars[i].number, ((node.scalars[i], 1),)) for i in within)
                    made.own = Node(scalars, (Parent(node),))
                    nodes.append(made.own)
                family.views += 1
                self.tensors[name] = made
            for made in nodes:
                made.beside = nodes

        return Plan(carry_out)

    def _detach(self, makes, source) -> Plan:
        if source.family.inference and not self.inference:
            raise Refused("whether it stays an inference tensor")
        return Plan(lambda _: self._unlinked(makes[0], source, source.family.counter))

    def _data(self, makes, source) -> Plan:
        if source.family.inference:
            raise Refused("not of an inference tensor")
        return Plan(lambda _: self._unlinked(makes[0], source, Counter()))

    def _unlinked(self, name: str, source: Tensor, counter: Counter) -> None:
        family = Family(source.family.storage, counter, source.places, inference=source.family.inference)
        family.contiguous = source.family.contiguous and _in_order(source)
        family.borrowed = source.family.borrowed
        self.tensors[name] = Tensor(family, source.shape, source.places, source.dtype)

    def _detach_(self, makes, tensor) -> Plan:
        if tensor.family.inference or self.inference:
            raise Refused("inference tensors have no history to leave")
        if tensor.view:
            return Plan(lambda raised: None, ("Can't detach views",), surely=True)
        if tensor.family.borrowed or tensor.family.views or tensor.retains_grad or (tensor.node and tensor.node.hooks):
            raise Refused("what becomes of its views and hooks is open")

        def carry_out(_: bool) -> None:
            tensor.family.node = None

        return Plan(carry_out)

    # Writes

    def _write(self, operation: Operation, operands: list[Tensor], parameters: tuple) -> Plan:
        target, family = operands[0], operands[0].family
        self._check_writable(operation, operands, parameters)
        recorded = self._recorded(operands)
        at = family.scalar_at()
        own = [at[place] for place in target.places] if recorded and at else None
        elements = [target.elements(own)]
        for tensor in operands[1:]:
            elements.append(tensor.elements(tensor.node.scalars if recorded and tensor.requires_grad else None))
        result = operation.rule(*elements, *parameters)
        if result is None:
            raise Refused("not for these shapes or numbers")
        scalars = flattened(result.scalars, target.dtype)
        check_exact([scalar.number for scalar in scalars])
        if target.dtype == "int64" and any(s.number % 1 for s in scalars):
            raise Refused("not a whole number")
        refused = family.inference and not self.inference
        if recorded and not refused and target.view not in (None, "recorded"):
            return Plan(lambda raised: None, (VIEW_WRITE,), surely=True)
        if recorded and not refused and family.node is not None and family.node.owner:
            return Plan(lambda raised: None, (LEAF_WRITE,), surely=True)
        keepers = self._keepers(operation, operands) if recorded else []
        if refused and any(t.requires_grad for t in operands[1:]):
            raise Refused("which of two errors it is")
        if any(tensor.family.inference for tensor in keepers):
            raise Refused("whether it keeps an inference tensor is open")
        saved = tuple(map(Saved.of, keepers))

        def carry_out(_: bool) -> None:
            whole = Tensor(family, (), family.places, target.dtype)  # a write changes the whole family
            parents = self._parents(operation, [whole, *operands[1:]]) if recorded else ()
            if target.view or "] = " in operation.code:  # a write through a view is used up by a backward in any case
                parents = tuple(p if p.keeps == "something" else replace(p, keeps="open") for p in parents)
            elif operation.name in ("fill_", "zero_", "copy_") and parents and parents[0].node is family.node:
                parents = (replace(parents[0], zeros=True), *parents[1:])
            for place, scalar in zip(target.places, scalars, strict=True):
                family.storage.numbers[place] = scalar.number
            family.storage.writes += 1
            family.counter.version += 1
            if recorded:
                kept = saved + ((Saved.of(target),) if operation.derivative == "signs" else ())
                new = dict(zip(target.places, scalars, strict=True))
                numbers = family.storage.numbers
                merged = tuple(
                    new[place].times(1) if place in new else Scalar(numbers[place], ((at[place], 1),) if at else ())
                    for place in family.places
                )
                family.node = Node(merged, parents, kept, settled=operation.derivative != "signs")

        if refused:  # on every release so far the error comes when the numbers are written already
            return Plan(carry_out, (INFERENCE_WRITE,), surely=True)
        return Plan(carry_out)

    def _check_writable(self, operation: Operation, operands: list[Tensor], parameters: tuple) -> None:
        """Refuse writes of which nothing is said."""
        target, other, storage = operands[0], operands[-1], operands[0].family.storage
        _common_dtype(operation, operands, parameters)
        if target.family.borrowed or len(set(target.places)) < len(target.places):
            raise Refused("elements may share memory")
        if _RANK[other.dtype] > _RANK[target.dtype] and {target.dtype, other.dtype} != _REAL:
            raise Refused("the result doesn't fit the target's dtype")
        if len(operands) == 2 and other.family.storage is storage and not _same_or_apart(operation, target, other):
            raise Refused("it would read what it writes")
        if other.parts < target.parts and not other.shape and "] = " in operation.code:
            raise Refused("PyTorch fails to give the gradient of this")
        if self.inference and storage.seen_in_parts:
            raise Refused("views of real or imaginary parts can't tell their history then")

    # Flags

    def _requires_grad_(self, makes, tensor, value) -> Plan:
        if tensor.family.inference or tensor.family.borrowed:
            raise Refused("not of this tensor")
        if value and not tensor.differentiable:
            return Plan(lambda raised: None, ("floating point",), surely=True)
        if not value and not tensor.is_leaf:
            return Plan(
                lambda raised: None, ("you can only change requires_grad flags of leaf variables",), surely=True
            )
        if value == tensor.requires_grad and not tensor.view:
            return Plan(lambda raised: None)
        if tensor.view or tensor.family.views or len(set(tensor.places)) < len(tensor.places):
            raise Refused("a flag of its own on one of several views")

        def carry_out(_: bool) -> None:
            if value:
                self._make_leaf(tensor)
            else:
                tensor.family.node = None

        return Plan(carry_out)

    def _retain_grad(self, makes, tensor) -> Plan:
        if not tensor.requires_grad:
            return Plan(lambda raised: None, (NOT_RETAINED,), surely=True)
        if tensor.is_leaf and tensor.view:
            raise Refused("a view whose gradients go nowhere")

        def carry_out(_: bool) -> None:
            tensor.retains_grad = not tensor.is_leaf
            tensor.node.retained = tensor.retains_grad

        return Plan(carry_out)

    # Modes

    def _enter(self, makes, mode, *value) -> Plan:
        if MODES.get(mode) != len(value):
            raise Refused("there is no such mode")

        def carry_out(_: bool) -> None:
            self._modes.append((self.grad_enabled, self.inference))
            if mode == "inference_mode":
                self.inference = value[0]
                self.grad_enabled = not value[0]
            else:
                self.grad_enabled = {"no_grad": False, "enable_grad": True}.get(mode, *value)

        return Plan(carry_out)

    def _leave(self, makes) -> Plan:
        if not self._modes:
            raise Refused("no mode is entered")

        def carry_out(_: bool) -> None:
            self.grad_enabled, self.inference = self._modes.pop()

        return Plan(carry_out)

    def _set_grad_enabled(self, makes, value) -> Plan:
        def carry_out(_: bool) -> None:
            self.grad_enabled = value

        return Plan(carry_out)

    # Hooks

    def _hook(self, makes, tensor, factor) -> Plan:
        if not tensor.requires_grad:
            error = "cannot register a hook on a tensor that doesn't require gradient"
            return Plan(lambda raised: None, (error,), surely=True)
        if tensor.is_leaf and tensor.view:
            raise Refused("a view whose gradients go nowhere")

        def carry_out(_: bool) -> None:
            self.hooks[makes[0]] = Hook(factor)
            tensor.node.hooks.append(self.hooks[makes[0]])

        return Plan(carry_out)

    def _unhook(self, makes, name) -> Plan:
        hook = self.hooks.get(name)
        if hook is None or hook.removed:
            raise Refused("it isn't there")

        def carry_out(_: bool) -> None:
            hook.removed = True

        return Plan(carry_out)

    # What .grad holds

    def _clear_grad(self, makes, tensor) -> Plan:
        def carry_out(_: bool) -> None:
            tensor.grad, tensor.grad_known = None, True

        return Plan(carry_out)

    def _zero_grad(self, makes, tensor) -> Plan:
        if tensor.grad is None or tensor.grad.requires_grad or not tensor.grad_known:
            raise Refused("no .grad that can be filled")

        def carry_out(_: bool) -> None:
            storage = tensor.grad.family.storage
            storage.numbers[:] = [0] * len(storage.numbers)
            storage.writes += 1
            tensor.grad.family.counter.version += 1

        return Plan(carry_out)

    def _set_grad(self, makes, tensor, numbers) -> Plan:
        if tensor.family.inference or self.inference or len(numbers) != len(tensor.places) or tensor.dtype == "int64":
            raise Refused("not for this tensor")

        def carry_out(_: bool) -> None:
            tensor.grad, tensor.grad_known = self._new(tensor.shape, tensor.dtype, list(numbers), borrowed=True), True

        return Plan(carry_out)

    def _forget(self, makes, name) -> Plan:
        if name not in self.tensors:
            raise Refused(f"there is no {name}")
        return Plan(lambda _: self.tensors.pop(name) and None)


def _common_dtype(operation: Operation, operands: list[Tensor], parameters: tuple) -> str:
    """The dtype of the result. A tensor without dimensions doesn't widen those that have some."""
    if operation.gives:
        return operation.gives(operands[0].dtype, parameters)
    if len({t.dtype for t in operands}) == 1:
        return operands[0].dtype
    if not operation.promotes or {"complex128", "float32"} <= {t.dtype for t in operands}:
        raise Refused("not for these dtypes")
    wide = max((t.dtype for t in operands if t.shape), key=_RANK.get, default=None)
    widest = max((t.dtype for t in operands), key=_RANK.get)
    if wide is None or _category(widest) > _category(wide):
        return widest
    return wide


def _category(dtype: str) -> int:
    return {"int64": 0, "complex128": 2}.get(dtype, 1)


def _same_or_apart(operation: Operation, target: Tensor, other: Tensor) -> bool:
    """Whether an elementwise write reads from the very elements that it writes, or from quite other ones."""
    if operation.name in ("add_", "mul_", "sub_", "copy_") and other is target:
        return len(target.places) > 0
    return set(other.places).isdisjoint(target.places) and len(target.places) > 0 and len(other.places) > 0


def _in_order(tensor: Tensor) -> bool:
    """Whether its elements are those of the storage, one behind the other."""
    return tensor.places == tuple(range(len(tensor.places)))
