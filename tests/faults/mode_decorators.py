"""Faults in what modes do to the functions that they decorate."""

import functools
import inspect
import warnings

import torch
from torch.utils import _contextlib

from . import fault, patched
from .grad_modes import set_mode


@fault("mode_decorators/a_mode_decorates_functions")
def decorated_functions_share_one_block():
    """All calls of a decorated function enter the same block, which forgets the mode before the outermost."""

    def make(true):
        def decorated(context, function):
            block = context()
            return true(lambda: block, function)

        return decorated

    with patched(_contextlib, "context_decorator", make):
        yield


@fault("mode_decorators/a_mode_decorates_functions")
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


@fault("mode_decorators/no_grad_decorates_without_parentheses")
def decorating_without_parentheses_is_in_vain():
    """no_grad and enable_grad, written without parentheses, give the function back as it was."""

    def make(true):
        return staticmethod(lambda cls, function=None: object.__new__(cls) if function is None else function)

    with patched(_contextlib._NoParamDecoratorContextManager, "__new__", make):
        yield


@fault("mode_decorators/decorating_a_function_leaves_the_mode_alone")
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


@fault("mode_decorators/a_mode_decorates_generator_functions")
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


@fault("mode_decorators/a_mode_decorates_generator_functions")
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


def decorating(change):
    """Let a mode decorate a function by `change(true decorator, the mode's maker, function)`."""
    return patched(_contextlib, "context_decorator", lambda true: lambda *args: change(true, *args))


@fault("mode_decorators/a_decorated_function_is_known_by_its_own_name")
def decorated_functions_lose_their_name():
    """A decorated function has the name and the signature of the decorator's."""

    def change(true, context, function):
        decorated = true(context, function)
        return lambda *args, **kwargs: decorated(*args, **kwargs)

    with decorating(change):
        yield


@fault("mode_decorators/a_decorated_function_is_known_by_its_own_name")
def decorated_functions_forget_keywords():
    """Keyword arguments of a decorated function are lost if it gets positional ones as well."""

    def change(true, context, function):
        decorated = true(context, function)

        @functools.wraps(function)
        def call(*args, **kwargs):
            return decorated(*args, **({} if args else kwargs))

        return call

    with decorating(change):
        yield


@fault(
    "mode_decorators/decorating_a_function_leaves_the_mode_alone",
    "mode_decorators/decorating_with_set_grad_enabled_switches_the_mode",
)
def decorating_turns_the_mode_around():
    """To decorate a function with set_grad_enabled leaves the opposite of the mode before."""

    def make(true):
        def call(block, function):
            decorated = true(block, function)
            set_mode(not block.prev)
            return decorated

        return call

    with patched(torch.set_grad_enabled, "__call__", make):
        yield


@fault("mode_decorators/decorating_a_class_warns_and_reaches_its_constructor_only")
def classes_are_decorated_without_a_warning():
    """Nothing is warned of."""
    with patched(warnings, "warn", lambda _: lambda *args, **kwargs: None):
        yield


@fault("mode_decorators/decorating_a_class_warns_and_reaches_its_constructor_only")
def decorated_classes_stay_classes():
    """A mode that decorates a class warns and leaves it alone."""

    def make(true):
        def call(block, function):
            decorated = true(block, function)
            return function if isinstance(function, type) else decorated

        return call

    with patched(_contextlib._DecoratorContextManager, "__call__", make):
        yield


@fault("mode_decorators/what_a_decorated_generator_returns_comes_through")
def decorated_generators_return_nothing():
    """What a decorated generator returns is lost."""

    def make(true):
        def wrap(context, function):
            decorated = true(context, function)

            def call(*args, **kwargs):
                yield from decorated(*args, **kwargs)

            return call

        return wrap

    with patched(_contextlib, "_wrap_generator", make):
        yield


@fault("mode_decorators/a_decorated_coroutine_runs_in_the_mode_of_its_caller")
def decorated_coroutines_run_in_their_mode():
    """A decorated async function runs inside the mode."""

    def change(true, context, function):
        if not inspect.iscoroutinefunction(function):
            return true(context, function)

        async def call(*args, **kwargs):
            with context():
                return await function(*args, **kwargs)

        return call

    with decorating(change):
        yield


@fault("mode_decorators/no_grad_decorates_without_parentheses")
def inference_mode_without_parentheses_is_in_vain():
    """inference_mode, written without parentheses, gives a function back as it was."""

    def make(true):
        def new(cls, mode=True):
            return true(cls, mode) if isinstance(mode, bool) else mode

        return staticmethod(new)

    with patched(torch.inference_mode, "__new__", make):
        yield
