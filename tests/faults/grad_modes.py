"""Faults in what grad modes do, and in how they are left."""

import contextlib
import threading

import torch
from torch.autograd import grad_mode
from torch.utils import _contextlib

from . import fault, patched, reading


def set_mode(enabled: bool) -> None:
    """Switch grad mode, whatever a fault did to the ways in which users switch it."""
    torch._C._set_grad_enabled(enabled)


@contextlib.contextmanager
def everything_recorded():
    """Grad mode is on in this block, whatever a fault did to enable_grad."""
    before = torch.is_grad_enabled()
    set_mode(True)
    try:
        yield
    finally:
        set_mode(before)


def leaving(owner, leave):
    """Let the mode `owner` be left by `leave(block, the arguments of __exit__)` in place of what it does."""
    return patched(owner, "__exit__", lambda _: lambda block, *raised: leave(block, *raised))


@fault(
    "grad_modes/operations_under_no_grad_are_not_recorded",
    "grad_modes/results_of_no_grad_are_constants_later",
    "grad_modes/the_innermost_mode_decides",
    "grad_modes/a_mode_decorates_functions",
    "grad_modes/no_grad_decorates_without_parentheses",
    "grad_modes/a_mode_can_be_entered_again",
)
def no_grad_does_nothing():
    """no_grad leaves grad mode on."""

    def enter(block):
        block.prev = torch.is_grad_enabled()

    with patched(torch.no_grad, "__enter__", lambda _: enter):
        yield


@fault("grad_modes/operations_under_no_grad_are_not_recorded")
def relu_is_recorded_under_no_grad():
    """relu records itself in every mode."""

    def make(true):
        def relu(tensor):
            with everything_recorded():
                return true(tensor)

        return relu

    with patched(torch.Tensor, "relu", make):
        yield


@fault("grad_modes/operations_under_no_grad_are_not_recorded")
def results_of_no_grad_are_no_leaves():
    """With grad mode off, is_leaf is false for every tensor that isn't a view and doesn't require grad."""

    def spoil(tensor, leaf):
        return leaf and (tensor.requires_grad or tensor._is_view() or tensor.dim() == 0)

    with reading("is_leaf", spoil):
        yield


@fault("grad_modes/a_graph_does_not_grow_under_no_grad")
def sums_with_results_are_recorded_under_no_grad():
    """Adding to the result of a recorded operation is recorded in every mode."""

    def make(true):
        def add(x, other):
            if x.grad_fn is None:
                return true(x, other)
            with everything_recorded():
                return true(x, other)

        return add

    with patched(torch.Tensor, "__add__", make):
        yield


@fault("grad_modes/a_graph_does_not_grow_under_no_grad")
def no_grad_forgets_the_graph_of_what_it_clones():
    """clone() under no_grad detaches the tensor that is cloned."""

    def make(true):
        def clone(x):
            if x.grad_fn is not None and not x._is_view() and not torch.is_grad_enabled():
                x.detach_()
            return true(x)

        return clone

    with patched(torch.Tensor, "clone", make):
        yield


@fault("graph/recording_does_not_change_what_is_computed")
def squares_are_one_too_large_under_no_grad():
    """With grad mode off, the product of a tensor with itself is 1 too large."""

    def make(true):
        def mul(tensor, other):
            result = true(tensor, other)
            return result + 1 if tensor is other and not torch.is_grad_enabled() else result

        return mul

    with patched(torch.Tensor, "__mul__", make):
        yield


@fault("graph/recording_does_not_change_what_is_computed")
def abs_is_skipped_under_no_grad():
    """With grad mode off, abs() gives back the values that it got."""

    def make(true):
        return lambda tensor: true(tensor) if torch.is_grad_enabled() else tensor.clone()

    with patched(torch.Tensor, "abs", make):
        yield


@fault("grad_modes/results_of_no_grad_are_constants_later", "grad_modes/operations_under_no_grad_are_not_recorded")
def sums_are_recorded_under_no_grad():
    """sum() records itself in every mode."""

    def make(true):
        def summed(tensor, *args, **kwargs):
            with everything_recorded():
                return true(tensor, *args, **kwargs)

        return summed

    with patched(torch.Tensor, "sum", make):
        yield


@fault("grad_modes/tensors_made_before_keep_their_flags_in_every_mode")
def requires_grad_is_false_where_grad_mode_is_off():
    """With grad mode off requires_grad reads as false."""
    with reading("requires_grad", lambda _, flag: flag and torch.is_grad_enabled()):
        yield


@fault("grad_modes/tensors_made_before_keep_their_flags_in_every_mode")
def history_is_hidden_where_grad_mode_is_off():
    """With grad mode off a tensor that isn't a leaf shows no grad_fn."""
    with reading("grad_fn", lambda _, node: node if torch.is_grad_enabled() else None):
        yield


@fault("grad_modes/leaves_can_be_made_in_every_mode", "leaves/a_parameter_is_a_leaf")
def parameters_made_under_no_grad_are_frozen():
    """With grad mode off nn.Parameter makes a tensor that doesn't require grad."""

    def make(true):
        def new(cls, data=None, requires_grad=True):
            return true(cls, data, requires_grad and torch.is_grad_enabled())

        return staticmethod(new)

    with patched(torch.nn.Parameter, "__new__", make):
        yield


@fault("grad_modes/leaves_can_be_made_in_every_mode")
def factories_heed_no_grad():
    """With grad mode off torch.full_like takes no notice of requires_grad=True."""

    def make(true):
        def full_like(*args, requires_grad=False, **kwargs):
            return true(*args, requires_grad=requires_grad and torch.is_grad_enabled(), **kwargs)

        return full_like

    with patched(torch, "full_like", make):
        yield


@fault("grad_modes/a_view_taken_under_no_grad_requires_grad_but_passes_none_on")
def views_taken_under_no_grad_are_detached():
    """With grad mode off unsqueeze() gives a detached view."""

    def make(true):
        return lambda tensor, dim: true(tensor if torch.is_grad_enabled() else tensor.detach(), dim)

    with patched(torch.Tensor, "unsqueeze", make):
        yield


@fault("grad_modes/a_view_taken_under_no_grad_requires_grad_but_passes_none_on")
def views_are_recorded_under_no_grad():
    """unbind() records itself in every mode."""

    def make(true):
        def unbind(tensor, dim=0):
            with everything_recorded():
                return true(tensor, dim)

        return unbind

    with patched(torch.Tensor, "unbind", make):
        yield


@fault("grad_modes/the_innermost_mode_decides", "grad_modes/a_graph_recorded_inside_no_grad_is_like_any_other")
def enable_grad_does_nothing():
    """enable_grad leaves grad mode off where it is off."""

    def enter(block):
        block.prev = torch.is_grad_enabled()

    with patched(torch.enable_grad, "__enter__", lambda _: enter):
        yield


@fault("grad_modes/the_innermost_mode_decides", "grad_modes/an_exception_passes_and_the_mode_is_restored")
def leaving_no_grad_turns_grad_mode_on():
    """When no_grad is left grad mode is on, whatever it was before."""
    with leaving(torch.no_grad, lambda block, *raised: set_mode(True)):
        yield


@fault("grad_modes/the_innermost_mode_decides")
def leaving_enable_grad_turns_grad_mode_off():
    """When enable_grad is left grad mode is off, also where it was on before."""
    with leaving(torch.enable_grad, lambda block, *raised: set_mode(False)):
        yield


@fault("grad_modes/the_innermost_mode_decides")
def leaving_set_grad_enabled_turns_its_mode_around():
    """When set_grad_enabled is left grad mode is the opposite of what it was inside."""
    with leaving(torch.set_grad_enabled, lambda block, *raised: set_mode(not block.mode)):
        yield


@fault("grad_modes/an_exception_passes_and_the_mode_is_restored")
def an_exception_leaves_no_grad_on():
    """When an exception leaves no_grad, grad mode stays off."""

    def leave(block, kind, *raised):
        if kind is None:
            set_mode(block.prev)

    with leaving(torch.no_grad, leave):
        yield


@fault("grad_modes/an_exception_passes_and_the_mode_is_restored")
def set_grad_enabled_swallows_exceptions():
    """An exception that leaves set_grad_enabled is lost."""

    def leave(block, *raised):
        set_mode(block.prev)
        return True

    with leaving(torch.set_grad_enabled, leave):
        yield


@fault("grad_modes/set_grad_enabled_is_a_function_too")
def set_grad_enabled_needs_a_block():
    """set_grad_enabled does nothing until it is entered."""

    def init(block, mode):
        block.prev = torch.is_grad_enabled()
        block.mode = mode

    with patched(torch.set_grad_enabled, "__init__", lambda _: init):
        yield


@fault("grad_modes/set_grad_enabled_is_a_function_too")
def no_grad_keeps_what_was_set_inside():
    """When no_grad is left, a mode that was switched on inside it stays."""
    with leaving(torch.no_grad, lambda block, *raised: set_mode(block.prev or torch.is_grad_enabled())):
        yield


@fault("grad_modes/a_graph_recorded_inside_no_grad_is_like_any_other")
def entering_set_grad_enabled_always_turns_it_off():
    """set_grad_enabled(True) turns grad mode off when it is entered where the mode was off before."""
    with patched(torch.set_grad_enabled, "__enter__", lambda _: lambda block: set_mode(block.prev and block.mode)):
        yield


@fault("grad_modes/backward_works_in_every_mode")
def backward_is_lost_under_no_grad():
    """With grad mode off backward() does nothing."""

    def make(true):
        def backward(*args, **kwargs):
            if torch.is_grad_enabled():
                true(*args, **kwargs)

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("grad_modes/backward_works_in_every_mode")
def grad_gives_zeros_under_no_grad():
    """With grad mode off torch.autograd.grad gives zeros."""

    def make(true):
        def grad(*args, **kwargs):
            found = true(*args, **kwargs)
            if torch.is_grad_enabled():
                return found
            return tuple(None if g is None else torch.zeros_like(g) for g in found)

        return grad

    with patched(torch.autograd, "grad", make):
        yield


@fault("grad_modes/create_graph_decides_alone_whether_a_gradient_is_recorded")
def create_graph_is_ignored_under_no_grad():
    """With grad mode off torch.autograd.grad takes no notice of create_graph=True."""

    def make(true):
        def grad(*args, create_graph=False, **kwargs):
            return true(*args, create_graph=create_graph and torch.is_grad_enabled(), **kwargs)

        return grad

    with patched(torch.autograd, "grad", make):
        yield


@fault("grad_modes/create_graph_decides_alone_whether_a_gradient_is_recorded")
def create_graph_leaves_grad_mode_on():
    """After backward(create_graph=True) grad mode is on."""

    def make(true):
        def backward(tensors, grad_tensors=None, retain_graph=None, create_graph=False, **kwargs):
            true(tensors, grad_tensors, retain_graph, create_graph, **kwargs)
            if create_graph:
                set_mode(True)

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("grad_modes/a_mode_decorates_functions")
def decorated_functions_share_one_block():
    """All calls of a decorated function enter the same block, which forgets the mode before the outermost."""

    def make(true):
        def decorated(context, function):
            block = context()
            return true(lambda: block, function)

        return decorated

    with patched(_contextlib, "context_decorator", make):
        yield


@fault("grad_modes/a_mode_decorates_functions")
def a_decorated_function_that_fails_keeps_its_mode():
    """When a decorated function raises, its mode stays."""

    def make(true):
        def decorator(context, function):
            def decorated(*args, **kwargs):
                block = context()
                block.__enter__()
                result = function(*args, **kwargs)
                block.__exit__(None, None, None)
                return result

            return decorated

        return decorator

    with patched(_contextlib, "context_decorator", make):
        yield


@fault("grad_modes/no_grad_decorates_without_parentheses")
def decorating_without_parentheses_is_in_vain():
    """no_grad and enable_grad, written without parentheses, give the function back as it was."""

    def make(true):
        return staticmethod(lambda cls, function=None: object.__new__(cls) if function is None else function)

    with patched(_contextlib._NoParamDecoratorContextManager, "__new__", make):
        yield


@fault("grad_modes/decorating_a_function_leaves_the_mode_alone")
def decorating_switches_the_mode():
    """To decorate a function with set_grad_enabled switches the mode."""

    def make(true):
        def call(block, function):
            decorated = true(block, function)
            set_mode(block.mode)
            return decorated

        return call

    with patched(torch.set_grad_enabled, "__call__", make):
        yield


@fault("grad_modes/a_mode_decorates_generator_functions")
def a_decorated_generator_is_made_in_the_mode_only():
    """A decorated generator function is called in the mode, but what it gives runs in its consumer's."""

    def make(true):
        def wrap(context, function):
            def call(*args, **kwargs):
                with context():
                    return function(*args, **kwargs)

            return call

        return wrap

    with patched(_contextlib, "_wrap_generator", make):
        yield


@fault("grad_modes/a_mode_decorates_generator_functions")
def a_decorated_generator_is_closed_outside_its_mode():
    """When a decorated generator is closed it runs in its consumer's mode."""

    def make(true):
        def wrap(context, function):
            def call(*args, **kwargs):
                generator = function(*args, **kwargs)
                with context():
                    response = next(generator)
                while True:
                    try:
                        request = yield response
                    except GeneratorExit:
                        generator.close()
                        raise
                    except Exception as thrown:
                        with context():
                            response = generator.throw(thrown)
                    else:
                        with context():
                            response = generator.send(request)

            return call

        return wrap

    with patched(_contextlib, "_wrap_generator", make):
        yield


@fault("grad_modes/modes_are_local_to_a_thread")
def threads_inherit_the_mode():
    """A new thread starts in the mode of the thread that starts it."""

    def make(true):
        def start(thread):
            mode, run = torch.is_grad_enabled(), thread.run

            def inherit():
                set_mode(mode)
                run()

            thread.run = inherit
            true(thread)

        return start

    with patched(threading.Thread, "start", make):
        yield


@fault("grad_modes/modes_are_local_to_a_thread")
def joining_a_thread_takes_over_its_mode():
    """Where a thread was joined grad mode is off."""

    def make(true):
        def join(thread, *args):
            true(thread, *args)
            set_mode(False)

        return join

    with patched(threading.Thread, "join", make):
        yield


@fault("grad_modes/a_mode_can_be_entered_again")
def a_block_is_good_for_one_time():
    """Blocks of no_grad remember the first mode that they were entered in."""

    def enter(block):
        block.first = vars(block).get("first", torch.is_grad_enabled())
        set_mode(False)

    with patched(torch.no_grad, "__enter__", lambda _: enter):
        with leaving(torch.no_grad, lambda block, *raised: set_mode(block.first)):
            yield


@fault("grad_modes/inference_mode_records_nothing")
def inference_mode_is_but_no_grad():
    """inference_mode does what no_grad does."""

    def enter(block):
        block.before = torch.is_grad_enabled()
        set_mode(False)

    with patched(torch.inference_mode, "__enter__", lambda _: enter):
        with leaving(torch.inference_mode, lambda block, *raised: set_mode(block.before)):
            yield


@fault("grad_modes/inference_mode_records_nothing")
def leaving_inference_mode_turns_grad_mode_on():
    """When inference_mode is left grad mode is on, whatever it was before."""

    def make(true):
        def leave(block, *raised):
            true(block, *raised)
            set_mode(True)

        return leave

    with patched(grad_mode.inference_mode, "__exit__", make):
        yield


@fault("grad_modes/inference_mode_false_records")
def inference_mode_takes_no_flag():
    """inference_mode(False) does what inference_mode() does."""
    with patched(torch.inference_mode, "__init__", lambda true: lambda block, mode=True: true(block, True)):
        yield


@fault("grad_modes/inference_mode_false_records")
def inference_mode_false_leaves_grad_mode_off():
    """inside inference_mode(False) grad mode is off if it was off outside."""

    def make(true):
        def enter(block):
            enabled = torch.is_grad_enabled()
            true(block)
            set_mode(enabled and not block.mode)

        return enter

    with patched(torch.inference_mode, "__enter__", make):
        yield
