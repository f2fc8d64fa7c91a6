"""`python -m tests.faults.lock_step` looks for every fault with random programs and writes docs/PROGRAMS.md.

For each fault: how many programs it took until PyTorch and the tape differed, and how many statements were left of that
program when it was shrunk. It takes a few minutes on two cores.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import statistics
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from specs.kit.drawing import CHUNK, written
from specs.kit.lockstep import difference
from specs.kit.world import World
from specs.verdicts.fuzz import shrink

from . import FAULTS

PAGE = Path(__file__).parents[2] / "docs" / "PROGRAMS.md"
MOST = 150  # programs for each fault
SECONDS = 30  # for each fault; one that makes PyTorch hang isn't waited for
FORK = multiprocessing.get_context("fork")
_MODULES = "programs have no modules, optimizers or initializations"
_NODES = "the attributes of nodes and edges, of which programs look at none"
_COPIES = "conversions and copies that programs don't make, and flags that they don't use"
_GRADS = "layouts and dtypes of .grad, at which programs don't look"
_ARGUMENTS = "arguments that programs don't vary"
_OPERATIONS = "operations that programs don't have, and points without a derivative, which they avoid"
_HOOKS = "hooks of other kinds, and what handles and hooks may be besides functions that look or multiply"
_MODES = "decorators, threads, generators and errors in blocks; programs enter and leave modes in order"
_WRITES = "ways to write that programs don't have, and what errors leave behind that nobody looks at"
_SAVED = "what nodes saved is read and packed by no program"
_SPARSE = "programs have no sparse tensors"
_LATER = "they are there since 2.14"
HOPELESS = (_MODULES, _NODES, _SAVED, _SPARSE, _LATER)  # not looked for: programs have nothing of the kind
WHY_NOT = {
    "graph": _NODES,
    "lifetime": "references and memory, at which programs don't look",
    "introspection": _NODES,
    "gradient_edges": _NODES,
    "creation_hooks": _LATER,
    "conversions": _COPIES,
    "copies": _COPIES,
    "leaves": _COPIES,
    "detaching": _COPIES,
    "accumulation": _GRADS,
    "intermediates": "results of functions that programs don't call",
    "gradient_layouts": _GRADS,
    "dtypes": _GRADS,
    "grad_dtypes": _GRADS,
    "sparse_gradients": _SPARSE,
    "backward": _ARGUMENTS,
    "targets": _ARGUMENTS,
    "gradient_function": _ARGUMENTS,
    "execution": "graphs deeper and wider than those of programs, and calls inside calls",
    "chain_rule": "operations that programs don't have, and graphs deeper than theirs",
    "local_derivatives": _OPERATIONS,
    "nondifferentiable": _OPERATIONS,
    "undefined_values": _OPERATIONS,
    "gradient_graphs": "graphs of gradients are rare in programs, and functions of the user are missing",
    "higher_order": "programs differentiate gradients once",
    "hooks": _HOOKS,
    "node_hooks": _HOOKS,
    "grad_modes": _MODES,
    "mode_blocks": _MODES,
    "mode_decorators": _MODES,
    "mode_views": _MODES,
    "inference_mode": _MODES,
    "inference_tensors": "most of what can be done with inference tensors outside is refused by programs",
    "inference_leaves": "most of what can be done with inference tensors outside is refused by programs",
    "inference_backward": "programs don't differentiate in inference mode",
    "inplace": _WRITES,
    "refused_writes": _WRITES,
    "assignments": _WRITES,
    "versions": _WRITES,
    "saved_changes": "operations that programs don't have, and errors that they may leave out",
    "allowed_mutation": "programs don't allow the mutation of saved tensors",
    "views": "view operations and attributes that programs don't have",
    "views_or_copies": "view operations and attributes that programs don't have",
    "views_of_other_types": "view operations and attributes that programs don't have",
    "views_in_place": "view operations and attributes that programs don't have",
    "refused_view_writes": _WRITES,
    "saved_tensors": _SAVED,
    "saved_tensor_hooks": _SAVED,
    "single_saved_tensors": _SAVED,
    "saved_tensor_hooks_scope": _SAVED,
    "saved_tensor_hooks_limits": _SAVED,
    "parameters": _MODULES,
    "initialization": _MODULES,
    "registration": _MODULES,
    "containers": _MODULES,
    "modules": _MODULES,
    "freezing": _MODULES,
    "module_state": _MODULES,
    "module_hooks": _MODULES,
    "module_backward_hooks": _MODULES,
    "module_backward_pre_hooks": _MODULES,
    "parametrizations": _MODULES,
    "gradient_tools": _MODULES,
    "optimizers": _MODULES,
    "parameter_groups": _MODULES,
    "programs": "too rare for so many programs",
    "article": "modules, and functions that programs don't call",
}


def _search(fault: str, sender: Connection) -> None:
    """Send the number of the first program that shows the fault, and its shrunk lines and difference."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    world = World(torch.device("cpu"))
    with FAULTS[fault].installed():
        for number in range(1, MOST + 1):
            program = written(random.Random(number).randbytes(CHUNK * 26))
            if difference(world, program):
                small = shrink(program, lambda candidate: difference(world, candidate) is not None)
                sender.send((number, small.lines(), len(small.statements), difference(world, small).why))
                return
    sender.send(None)


def search(fault: str) -> tuple[str, object]:
    """What was found of a fault, in a process of its own, which the fault may crash."""
    if WHY_NOT[chapter_of(fault)] in HOPELESS:
        return fault, "not looked for"
    receiver, sender = FORK.Pipe(duplex=False)
    child = FORK.Process(target=_search, args=(fault, sender))
    child.start()
    sender.close()
    try:
        found = receiver.recv() if receiver.poll(SECONDS) else "hangs"
    except EOFError:
        found = "crashes"
    child.kill()
    child.join()
    return fault, found


def chapter_of(fault: str) -> str:
    """The chapter for whose claims the fault was made."""
    return FAULTS[fault].installed.__wrapped__.__module__.rpartition(".")[2]


def page(results: dict[str, object]) -> str:
    """The results as a page."""
    found = {name: result for name, result in results.items() if isinstance(result, tuple)}
    sizes, numbers = [r[2] for r in found.values()], [r[0] for r in found.values()]
    text = "<!-- Generated by `python -m tests.faults.lock_step`: don't edit. -->\n\n# What random programs find\n\n"
    tried = sum(result != "not looked for" for result in results.values())
    text += (
        f"Each of {tried} faults was put into torch {torch.__version__}, and up to {MOST} random programs were run in "
    )
    text += (
        f"lock step with the reference model until one differed; {len(results) - tried} faults in what programs don't "
    )
    text += f"have were not looked for. {len(found)} faults were found, half of them within "
    text += f"{statistics.median(numbers):g} programs; shrunk, the programs have {statistics.median(sizes):g} "
    text += "statements at the "
    text += f"median and {max(sizes)} at the most. The other faults are those of the other chapters alone.\n\n"
    text += "| chapter of the fault | faults | found | why others aren't |\n| --- | ---: | ---: | --- |\n"
    for chapter in dict.fromkeys(map(chapter_of, results)):
        own = [name for name in results if chapter_of(name) == chapter]
        text += f"| {chapter} | {len(own)} | {sum(n in found for n in own)} | {WHY_NOT[chapter]} |\n"
    text += "\n## Found\n\n| fault | what it does | programs | statements | first difference |\n"
    text += "| --- | --- | ---: | ---: | --- |\n"
    for name, (number, _, size, why) in found.items():
        shown = why.replace("|", "\\|")
        text += f"| `{name}` | {FAULTS[name].says} | {number} | {size} | `{shown[:110]}` |\n"
    text += "\n## Not found\n\n| fault | what it does | |\n| --- | --- | --- |\n"
    for name, result in results.items():
        if name not in found:
            text += f"| `{name}` | {FAULTS[name].says} | {result or ''} |\n"
    return text


def main() -> int:
    names = list(FAULTS)
    results = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, (fault, result) in enumerate(pool.map(search, names), start=1):
            results[fault] = result
            told = (
                f"program {result[0]}, {result[2]} statements" if isinstance(result, tuple) else result or "not found"
            )
            print(f"{number:>3}/{len(names)}  {fault:<70} {told}", flush=True)
    PAGE.write_text(page(results), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
