"""Faults in hooks on nodes, and on several tensors at once."""

import collections
import contextlib
import functools

import torch
from torch.autograd import graph

from . import fault, leaves_below, patched, reading


class Spoilt:
    """A node as users see it, with one method that was replaced for nodes of one kind."""

    def __init__(self, node, method, kind, make):
        self._node, self._spoil = node, (method, kind, make)

    def __getattr__(self, name):
        method, kind, make = self._spoil
        true = getattr(self._node, name)
        if name == "next_functions":
            return tuple((below and Spoilt(below, *self._spoil), number) for below, number in true)
        if name == method and kind in self._node.name().lower():
            return functools.partial(make(lambda node, hook: true(hook)), self._node)
        return true


@contextlib.contextmanager
def registering(method, kind, make):
    """Replace the method of nodes whose name has `kind` in it by `make(the true one)`."""
    with reading("grad_fn", lambda _, node: node and Spoilt(node, method, kind, make)):
        yield


SEES = "node_hooks/a_hook_on_a_node_sees_what_the_node_made_of_the_cotangent"
RETURNS = "node_hooks/what_a_hook_on_a_node_returns_goes_on_to_its_inputs"
BEFORE = "node_hooks/a_prehook_on_a_node_sees_and_replaces_the_cotangent"
UNFIT = "node_hooks/backward_raises_if_a_hook_on_a_node_returns_anything_else"
REMOVED = "node_hooks/a_hook_on_a_node_that_was_removed_runs_no_more"
EXCEPTION = "node_hooks/an_exception_in_a_hook_on_a_node_reaches_the_caller"
LEAF = "node_hooks/the_kinds_of_hooks_on_a_leaf_run_in_a_fixed_order"
RESULT = "node_hooks/the_kinds_of_hooks_on_a_result_run_in_a_fixed_order"
ONLY = "node_hooks/hooks_on_nodes_run_only_if_the_node_runs"
INPUTS = "node_hooks/backward_runs_the_node_of_a_result_among_its_inputs"
ALL = "node_hooks/a_multi_grad_hook_is_called_once_with_all_gradients"
ANY = "node_hooks/a_multi_grad_hook_of_mode_any_is_called_once_with_the_first_gradient"
MODES = "node_hooks/a_multi_grad_hook_of_another_mode_is_refused"
HANDLE = "node_hooks/the_handle_of_a_multi_grad_hook_removes_it_from_all_tensors"
GRAD = "node_hooks/a_multi_grad_hook_on_a_leaf_keeps_grad_from_asking_for_it"


@fault(SEES)
def a_hook_on_a_node_gets_its_arguments_the_other_way_round():
    """Hooks on the nodes of products get the gradients by the results first."""
    with registering("register_hook", "mul", lambda true: lambda n, hook: true(n, lambda i, o: hook(o, i))):
        yield


@fault(SEES)
def a_hook_on_a_node_gets_zeros_for_inputs_that_do_not_require_grad():
    """Hooks on the nodes of sums get zeros in the place of None."""

    def make(true):
        def register(node, hook):
            return true(node, lambda i, o: hook(tuple(torch.zeros_like(o[0]) if g is None else g for g in i), o))

        return register

    with registering("register_hook", "add", make):
        yield


@fault(RETURNS)
def what_a_hook_on_a_node_returns_for_the_second_input_is_ignored():
    """Of what hooks on the nodes of products return, the second gradient is ignored."""

    def make(true):
        def register(node, hook):
            def kept(i, o):
                returned = hook(i, o)
                return returned and (returned[0], *i[1:])

            return true(node, kept)

        return register

    with registering("register_hook", "mul", make):
        yield


@fault(BEFORE)
def what_a_hook_before_a_node_returns_is_ignored():
    """What hooks before the nodes of differences return is ignored."""

    def make(true):
        def register(node, hook):
            return true(node, lambda cotangents: (hook(cotangents), None)[1])

        return register

    with registering("register_prehook", "sub", make):
        yield


@fault(BEFORE)
def a_hook_before_a_node_runs_behind_it():
    """A hook before the node of a product runs behind it, on the gradients by the inputs."""

    def make(true):
        return lambda node, hook: node.register_hook(lambda i, o: (hook(o), None)[1])

    with registering("register_prehook", "mul", make):
        yield


@fault(UNFIT)
def a_list_of_gradients_is_taken_as_well():
    """Hooks on nodes may return lists."""

    def make(true):
        def register(node, hook):
            def turned(i, o):
                returned = hook(i, o)
                return tuple(returned) if isinstance(returned, list) else returned

            return true(node, turned)

        return register

    with registering("register_hook", "", make):
        yield


@fault(UNFIT)
def gradients_of_another_dtype_are_cast():
    """What hooks before nodes return is cast to the dtype of the gradients."""

    def make(true):
        def register(node, hook):
            def cast(cotangents):
                returned = hook(cotangents)
                tensors = isinstance(returned, tuple) and all(isinstance(g, torch.Tensor) for g in returned)
                return tuple(g.to(cotangents[0].dtype) for g in returned) if tensors else returned

            return true(node, cast)

        return register

    with registering("register_prehook", "", make):
        yield


@fault(REMOVED)
def hooks_on_nodes_stay():
    """Removing a hook from the node of a product does nothing."""

    def make(true):
        def register(node, hook):
            true(node, hook)
            return torch.utils.hooks.RemovableHandle(collections.OrderedDict())

        return register

    with registering("register_hook", "mul", make):
        yield


@fault(EXCEPTION)
def an_exception_in_a_hook_before_a_node_is_swallowed():
    """An exception in a hook before the node of a product is swallowed."""

    def make(true):
        def register(node, hook):
            def guarded(cotangents):
                with contextlib.suppress(ArithmeticError):
                    return hook(cotangents)

            return true(node, guarded)

        return register

    with registering("register_prehook", "mul", make):
        yield


@fault(LEAF)
def a_hook_before_the_accumulation_runs_before_the_hooks_of_the_leaf():
    """A hook before the node that accumulates becomes a hook of the tensor that runs first."""

    def make(true):
        def register(node, hook):
            handle = node.variable.register_hook(lambda gradient: (hook((gradient,)), None)[1])
            hooks = node.variable._backward_hooks
            hooks.move_to_end(handle.id, last=False)
            return handle

        return register

    with registering("register_prehook", "accumulate", make):
        yield


@fault(LEAF)
def a_hook_behind_the_accumulation_runs_before_it():
    """A hook behind the node that accumulates runs before .grad is updated."""

    def make(true):
        return lambda node, hook: node.register_prehook(lambda cotangents: (hook((), cotangents), None)[1])

    with registering("register_hook", "accumulate", make):
        yield


@fault(RESULT)
def a_retained_grad_has_what_hooks_before_the_node_return():
    """A retained .grad is set by a hook before the node, which runs behind those that were registered before it."""

    def keep(tensor):
        tensor.grad_fn.register_prehook(lambda cotangents: setattr(tensor, "grad", cotangents[0].clone()))

    with patched(torch.Tensor, "retain_grad", lambda _: keep):
        yield


@fault(ONLY)
def grad_runs_all_nodes():
    """autograd.grad asks for the gradients of all leaves as well, so that every node runs."""

    def make(true):
        def grad(outputs, inputs, *args, **kwargs):
            inputs = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
            return true(outputs, inputs + leaves_below(outputs), *args, **kwargs)[: len(inputs)]

        return grad

    with patched(torch.autograd, "grad", make):
        yield


@fault(INPUTS)
def backward_stops_above_the_nodes_of_its_inputs():
    """backward with results as inputs gets their gradients by autograd.grad and puts them into .grad."""

    def make(true):
        def backward(tensor, *args, inputs=None, **kwargs):
            if inputs is None or any(t.is_leaf for t in inputs):
                return true(tensor, *args, inputs=inputs, **kwargs)
            for t, gradient in zip(inputs, torch.autograd.grad(tensor, inputs), strict=True):
                t.retain_grad()
                t.grad = gradient
            return None

        return backward

    with patched(torch.Tensor, "backward", make):
        yield


@fault(ALL)
def a_multi_grad_hook_leaves_out_what_was_not_reached():
    """A multi-grad hook gets a list of the gradients that were computed only."""

    def make(true):
        def register(tensors, hook, **kwargs):
            return true(tensors, lambda gradients: hook([g for g in gradients if g is not None]), **kwargs)

        return register

    with patched(graph, "register_multi_grad_hook", make):
        yield


@fault(ALL)
def a_multi_grad_hook_is_called_for_each_tensor():
    """A multi-grad hook is called whenever the gradient of one of its tensors is computed."""

    def make(true):
        def register(tensors, hook, **kwargs):
            for number, tensor in enumerate(tensors):
                blank = [None] * len(tensors)
                tensor.register_hook(
                    lambda g, number=number, blank=blank: (hook([*blank[:number], g, *blank[number + 1 :]]), None)[1]
                )

        return register

    with patched(graph, "register_multi_grad_hook", make):
        yield


@fault(ANY)
def a_hook_of_mode_any_gets_the_last_gradient():
    """With mode any, a multi-grad hook waits for all gradients and gets the first tensor's."""

    def make(true):
        def register(tensors, hook, mode="all"):
            if mode != "any":
                return true(tensors, hook, mode=mode)
            return true(tensors, lambda gradients: hook(gradients[0]))

        return register

    with patched(graph, "register_multi_grad_hook", make):
        yield


@fault(MODES)
def an_unknown_mode_counts_as_all():
    """A multi-grad hook of an unknown mode is one of mode all."""

    def make(true):
        return lambda tensors, hook, mode="all": true(tensors, hook, mode="any" if mode == "any" else "all")

    with patched(graph, "register_multi_grad_hook", make):
        yield


@fault(MODES)
def a_hook_of_an_unknown_mode_is_registered_before_it_is_refused():
    """A multi-grad hook of an unknown mode is registered, and then refused."""

    def make(true):
        def register(tensors, hook, mode="all"):
            if mode not in ("all", "any"):
                true(tensors, hook)
            return true(tensors, hook, mode=mode)

        return register

    with patched(graph, "register_multi_grad_hook", make):
        yield


@fault(HANDLE)
def the_handle_of_a_multi_grad_hook_does_nothing():
    """The handle of a multi-grad hook removes nothing."""

    def make(true):
        def register(*args, **kwargs):
            true(*args, **kwargs)
            return torch.utils.hooks.RemovableHandle(collections.OrderedDict())

        return register

    with patched(graph, "register_multi_grad_hook", make):
        yield


@fault(GRAD)
def multi_grad_hooks_let_grad_be():
    """A multi-grad hook on leaves doesn't run in autograd.grad."""

    def make(true):
        def register(tensors, hook, **kwargs):
            handles = [t.register_hook(lambda g: None) for t in tensors]
            return handles[0]

        return register

    with patched(graph, "register_multi_grad_hook", make):
        yield
