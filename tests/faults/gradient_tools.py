"""Faults in clipping gradients, and in making vectors of parameters."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from . import fault, patched


@contextlib.contextmanager
def clipping(name: str, spoil: Callable[..., Any]) -> Iterator[None]:
    """Let the function of torch.nn.utils be spoil(what it does truly, parameters, the maximum)."""

    def make(true: Callable[..., Any]) -> Callable[..., Any]:
        def clip(parameters, most, **options):
            listed = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)
            return spoil(lambda ps: true(ps, most, **options), listed, most)

        return clip

    with patched(nn.utils, name, make):
        yield


@fault("gradient_tools/clip_grad_norm_scales_all_gradients_alike")
def each_gradient_is_clipped_by_itself():
    """clip_grad_norm_ clips each gradient to the maximum, as if it were the only one."""

    def clip(true, parameters, most):
        total = true([nn.Parameter(p.detach()) for p in parameters[:0]])
        for p in parameters:
            total = total + true([p])
        return total

    with clipping("clip_grad_norm_", clip):
        yield


@fault("gradient_tools/clip_grad_norm_scales_all_gradients_alike")
def small_gradients_are_scaled_up():
    """clip_grad_norm_ doubles gradients whose norm doesn't exceed the maximum."""

    def clip(true, parameters, most):
        total = true(parameters)
        for p in parameters:
            if p.grad is not None and float(total) < most:
                p.grad.mul_(2)
        return total

    with clipping("clip_grad_norm_", clip):
        yield


@fault("gradient_tools/clip_grad_norm_scales_all_gradients_alike")
def the_norm_is_that_of_afterwards():
    """clip_grad_norm_ returns the norm that the gradients have after it."""

    def clip(true, parameters, most):
        return true(parameters).clamp(max=most)

    with clipping("clip_grad_norm_", clip):
        yield


@fault("gradient_tools/clip_grad_norm_scales_all_gradients_alike")
def gradients_are_clipped_out_of_place():
    """clip_grad_norm_ puts new tensors into .grad."""

    def clip(true, parameters, most):
        for p in parameters:
            p.grad = None if p.grad is None else p.grad.clone()
        return true(parameters)

    with clipping("clip_grad_norm_", clip):
        yield


@fault("gradient_tools/clip_grad_norm_scales_all_gradients_alike")
def missing_gradients_are_zeros_after_clipping():
    """clip_grad_norm_ makes zeros where .grad is None."""

    def clip(true, parameters, most):
        for p in parameters:
            p.grad = torch.zeros_like(p).detach() if p.grad is None else p.grad
        return true(parameters)

    with clipping("clip_grad_norm_", clip):
        yield


@fault("gradient_tools/a_norm_that_is_not_finite_is_an_error_on_demand")
def gradients_are_zeroed_before_the_error():
    """clip_grad_norm_ zeroes gradients before it raises its error."""

    def clip(true, parameters, most):
        try:
            return true(parameters)
        except RuntimeError:
            for p in parameters:
                p.grad.zero_()
            raise

    with clipping("clip_grad_norm_", clip):
        yield


@fault("gradient_tools/a_norm_that_is_not_finite_is_an_error_on_demand")
def infinity_is_finite():
    """clip_grad_norm_ raises no error for infinite gradients."""

    def clip(true, parameters, most):
        infinite = any(p.grad is not None and p.grad.isinf().any() for p in parameters)
        return torch.tensor(float("inf")) if infinite else true(parameters)

    with clipping("clip_grad_norm_", clip):
        yield


@fault("gradient_tools/clip_grad_value_clips_each_element")
def negative_elements_are_not_clipped():
    """clip_grad_value_ clips large elements only, and no small ones."""

    def clip(true, parameters, most):
        for p in parameters:
            if p.grad is not None:
                p.grad.clamp_(max=most)

    with clipping("clip_grad_value_", clip):
        yield


@fault("gradient_tools/clip_grad_value_clips_each_element")
def the_last_gradient_is_not_clipped():
    """clip_grad_value_ leaves out the last of several parameters."""
    with clipping("clip_grad_value_", lambda true, ps, most: true(ps[:-1] if len(ps) > 1 else ps)):
        yield


@fault(
    "gradient_tools/where_there_is_no_gradient_clipping_values_fails",
    "gradient_tools/where_there_is_no_gradient_no_value_is_clipped",
)
def clipping_nothing_makes_zeros():
    """clip_grad_value_ makes zeros where no parameter has a .grad."""

    def clip(true, parameters, most):
        if all(p.grad is None for p in parameters):
            for p in parameters:
                p.grad = torch.zeros_like(p).detach()
        true(parameters)

    with clipping("clip_grad_value_", clip):
        yield


@fault("gradient_tools/a_vector_of_parameters_has_their_gradients")
def vectors_of_parameters_are_detached():
    """parameters_to_vector() detaches the vector."""
    with patched(nn.utils, "parameters_to_vector", lambda true: lambda ps: true(ps).detach()):
        yield


@fault("gradient_tools/a_vector_of_parameters_has_their_gradients")
def a_parameter_that_comes_twice_counts_once():
    """In a vector of parameters one that comes a second time is a constant."""

    def make(true):
        def vector(parameters):
            parameters, seen = list(parameters), set()
            for i, p in enumerate(parameters):
                parameters[i] = p.detach() if id(p) in seen else p
                seen.add(id(p))
            return true(parameters)

        return vector

    with patched(nn.utils, "parameters_to_vector", make):
        yield


@contextlib.contextmanager
def filling(spoil: Callable[..., None]) -> Iterator[None]:
    """Let vector_to_parameters() do spoil(what it does truly, vector, parameters)."""

    def make(true: Callable[..., None]) -> Callable[..., None]:
        return lambda vector, parameters: spoil(true, vector, list(parameters))

    with patched(nn.utils, "vector_to_parameters", make):
        yield


@fault("gradient_tools/a_vector_becomes_the_memory_of_parameters")
def vectors_are_copied():
    """vector_to_parameters() copies the vector."""
    with filling(lambda true, vector, parameters: true(vector.clone(), parameters)):
        yield


@fault("gradient_tools/a_vector_becomes_the_memory_of_parameters")
def filled_parameters_have_no_gradient():
    """vector_to_parameters() makes the .grad of the second parameter None."""

    def fill(true, vector, parameters):
        true(vector, parameters)
        for p in parameters[1:2]:
            p.grad = None

    with filling(fill):
        yield


@fault("gradient_tools/a_vector_becomes_the_memory_of_parameters")
def parameters_take_the_flag_of_the_vector():
    """vector_to_parameters() lets parameters require grad if the vector does."""

    def fill(true, vector, parameters):
        true(vector, parameters)
        for p in parameters:
            p.requires_grad_(p.requires_grad or vector.requires_grad)

    with filling(fill):
        yield


@fault("gradient_tools/a_vector_that_does_not_fit_is_refused")
def short_vectors_are_filled_up():
    """vector_to_parameters() adds zeros to a vector that is too short."""

    def fill(true, vector, parameters):
        if isinstance(vector, torch.Tensor):
            vector = torch.cat([vector, vector.new_zeros(9)])
        true(vector, parameters)

    with filling(fill):
        yield
