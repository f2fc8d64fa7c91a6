"""Faults in torch.nn.init, and in how layers fill their parameters."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from . import fault, patched


@fault("initialization/nn_init_fills_a_leaf_in_every_mode")
def init_needs_no_grad():
    """The functions of torch.nn.init fill a leaf in the mode of their caller by way of a new .data."""

    def make(true):
        def constant(tensor, number):
            tensor.data = torch.full_like(tensor.data, number)
            return tensor

        return constant

    with patched(torch.nn.init, "constant_", make):
        yield


@fault("initialization/nn_init_fills_a_leaf_in_every_mode")
def init_leaves_grad_mode_on():
    """After torch.nn.init.uniform_ grad mode is on."""

    def make(true):
        def uniform(*args):
            result = true(*args)
            torch.set_grad_enabled(True)
            return result

        return uniform

    with patched(torch.nn.init, "uniform_", make):
        yield


@contextlib.contextmanager
def initializing(spoil: Callable[..., Any], *names: str) -> Iterator[None]:
    """Let the functions of torch.nn.init be spoil(what they do truly, p, *args)."""

    def make(true: Callable[..., Any]) -> Callable[..., Any]:
        return lambda p, *args, **kwargs: spoil(lambda: true(p, *args, **kwargs), p)

    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(patched(nn.init, name, make))
        yield


@fault("initialization/random_initializers_record_nothing", "initialization/resetting_a_layer_keeps_its_parameters")
def random_initializers_thaw():
    """Random initializers of torch.nn.init let what they fill require grad."""

    def thaw(true, p):
        result = true()
        return result.requires_grad_() if result.is_leaf else result

    with initializing(thaw, "uniform_", "normal_", "kaiming_uniform_", "xavier_uniform_", "xavier_normal_"):
        yield


@fault("initialization/random_initializers_record_nothing")
def matrices_are_initialized_elsewhere():
    """Initializers of matrices put their numbers into new memory."""

    def move(true, p):
        result = true()
        p.data = p.data.clone()
        return result

    with initializing(move, "xavier_normal_", "kaiming_normal_", "trunc_normal_", "sparse_"):
        yield


@fault("initialization/random_initializers_record_nothing")
def initializers_clear_gradients():
    """torch.nn.init.kaiming_normal_ makes .grad None."""

    def clear(true, p):
        result = true()
        p.grad = None
        return result

    with initializing(clear, "kaiming_normal_"):
        yield


@fault("initialization/nn_init_fills_a_part_of_a_leaf")
def initializers_fill_the_whole_leaf():
    """Given a view of a leaf, torch.nn.init.constant_ fills the whole leaf."""

    def make(true):
        def constant(p, number):
            base = p if p._base is None else p._base
            true(base, number)
            return p

        return constant

    with patched(nn.init, "constant_", make):
        yield


@fault("initialization/nn_init_fills_a_part_of_a_leaf")
def initializers_of_views_fill_a_copy():
    """Given a view, torch.nn.init.ones_ and normal_ fill a copy."""

    def make(true):
        return lambda p, *args: p if p._is_view() else true(p, *args)

    with patched(nn.init, "ones_", make), patched(nn.init, "normal_", make):
        yield


@fault("initialization/an_initializer_that_needs_a_matrix_refuses_a_vector")
def vectors_are_initialized_before_they_are_refused():
    """torch.nn.init.eye_ raises its error for a vector after it zeroed it."""

    def zero(true, p):
        try:
            return true()
        except ValueError:
            with torch.no_grad():
                p.zero_()
            raise

    with initializing(zero, "eye_"):
        yield


@fault("initialization/an_initializer_that_needs_a_matrix_refuses_a_vector")
def vectors_are_no_error():
    """torch.nn.init.xavier_uniform_ leaves a vector as it is, without an error."""
    with initializing(lambda true, p: p if p.dim() < 2 else true(), "xavier_uniform_"):
        yield


@fault("initialization/resetting_a_layer_keeps_its_parameters")
def resetting_a_layer_clears_gradients():
    """reset_parameters() of normalization layers makes their gradients None."""

    def make(true):
        def reset(layer):
            true(layer)
            for p in layer.parameters():
                p.grad = None

        return reset

    with patched(nn.LayerNorm, "reset_parameters", make), patched(nn.GRUCell, "reset_parameters", make):
        yield


@fault("initialization/resetting_a_layer_keeps_its_parameters")
def resetting_an_embedding_makes_a_new_one():
    """reset_parameters() of an Embedding gives it a new weight."""

    def make(true):
        def reset(layer):
            layer.weight = nn.Parameter(torch.zeros_like(layer.weight), layer.weight.requires_grad)
            true(layer)

        return reset

    with patched(nn.Embedding, "reset_parameters", make):
        yield
