"""Faults in node creation hooks; they can show on torch 2.14 and later only."""

import contextlib

import torch

from . import fault, patched
from .graph import Spoiled

GRAPH = torch.autograd.graph


def wrong_hooks(spoil):
    """Let node_creation_hook(hook) be spoil(the true one, hook), where releases have it."""
    if not hasattr(GRAPH, "node_creation_hook"):
        return contextlib.nullcontext()
    return patched(GRAPH, "node_creation_hook", lambda true: lambda hook: spoil(true, hook))


@fault("creation_hooks/a_creation_hook_gets_each_node_of_the_graph")
def creation_hooks_are_called_twice():
    """A creation hook is called twice with each node."""
    with wrong_hooks(lambda true, hook: true(lambda node: (hook(node), hook(node))[1])):
        yield


@fault("creation_hooks/a_creation_hook_gets_each_node_of_the_graph")
def creation_hooks_do_not_hear_of_user_defined_nodes():
    """A creation hook isn't called with nodes of operations that the user defines."""
    with wrong_hooks(lambda true, hook: true(lambda node: None if hasattr(node, "saved_tensors") else hook(node))):
        yield


@fault("creation_hooks/a_creation_hook_is_called_in_its_block_only")
def creation_hooks_stay_after_an_exception():
    """A creation hook stays if its block is left by an exception, and is called by the next block's nodes, too."""

    @contextlib.contextmanager
    def block(true, hook):
        try:
            with true(hook):
                yield
        except KeyError:
            hook(None)
            raise

    with wrong_hooks(block):
        yield


@fault("creation_hooks/a_creation_hook_gets_nodes_that_are_complete")
def creation_hooks_get_nodes_without_edges():
    """A node has no edges yet when a creation hook is called with it."""

    class Bare(Spoiled):
        next_functions = ()

        def __eq__(self, other):
            return other == self._node

        __hash__ = None

    def spoil(true, hook):
        def early(node):
            bare = Bare(node)
            hook(bare)
            del Bare.next_functions
            Bare.next_functions = property(lambda self: self._node.next_functions)

        return true(early)

    with wrong_hooks(spoil):
        yield


@fault("creation_hooks/a_creation_hook_gets_nodes_that_are_complete")
def creation_hooks_get_other_objects():
    """A creation hook is called with a stand-in, whose metadata is another dict each time."""

    class Other(Spoiled):
        metadata = property(lambda self: {})

    with wrong_hooks(lambda true, hook: true(lambda node: hook(Other(node)))):
        yield


@fault("creation_hooks/nested_creation_hooks_are_called_from_the_outermost")
def the_inner_creation_hook_alone_is_called():
    """A creation hook isn't called while another block is open in its own."""
    depth = []

    @contextlib.contextmanager
    def block(true, hook):
        depth.append(hook)
        level = len(depth)
        try:
            with true(lambda node: hook(node) if len(depth) == level else None):
                yield
        finally:
            depth.pop()

    with wrong_hooks(block):
        yield


@fault("creation_hooks/a_creation_hook_gets_the_nodes_that_backward_makes")
def creation_hooks_do_not_hear_of_backward():
    """A creation hook isn't called with the nodes that backward makes."""
    called = torch._C._current_graph_task_id

    with wrong_hooks(lambda true, hook: true(lambda node: hook(node) if called() == -1 else None)):
        yield


@fault("creation_hooks/a_creation_hook_cannot_make_nodes")
def creation_hooks_run_without_grad_mode():
    """A creation hook runs in no-grad mode, whatever it sets."""

    def spoil(true, hook):
        def quiet(node):
            with contextlib.suppress(RuntimeError):
                hook(node)

        return true(quiet)

    with wrong_hooks(spoil):
        yield


@fault("creation_hooks/a_creation_hook_is_of_one_thread")
def creation_hooks_hear_of_all_threads():
    """A creation hook is called once more when its block ends, for what other threads did."""

    @contextlib.contextmanager
    def block(true, hook):
        with true(hook):
            yield
        hook(None)

    with wrong_hooks(block):
        yield


@fault("creation_hooks/a_creation_hook_hears_of_a_leaf_with_its_first_graph")
def creation_hooks_do_not_hear_of_leaves():
    """A creation hook isn't called with the accumulate nodes of leaves."""
    with wrong_hooks(lambda true, hook: true(lambda node: None if hasattr(node, "variable") else hook(node))):
        yield
