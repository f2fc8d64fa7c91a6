"""Faults in parametrizations and weight norm."""

import contextlib

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.weight_norm import WeightNorm

from . import fault, patched


@contextlib.contextmanager
def computing(spoil):
    """Let a parametrized weight be spoil(the parametrizations, what they give truly)."""

    def make(true):
        return lambda parametrizations: spoil(parametrizations, lambda: true(parametrizations))

    with patched(parametrize.ParametrizationList, "forward", make):
        yield


@contextlib.contextmanager
def after_registering(spoil):
    """After a parametrization was registered call spoil(module, name)."""

    def make(true):
        def register(module, name, parametrization, **options):
            true(module, name, parametrization, **options)
            spoil(module, name)
            return module

        return register

    with patched(parametrize, "register_parametrization", make):
        yield


@fault(
    "parametrizations/a_parametrized_weight_is_computed_and_differentiated_through",
    "parametrizations/a_weight_of_several_originals_gives_each_its_gradient",
)
def the_second_parametrization_is_cut_off():
    """A weight of several parametrizations has the values of all, but the gradient of the first alone."""

    def cut(parametrizations, true):
        w = true()
        if len(parametrizations) < 2:
            return w
        first = parametrizations[0](*(t for n, t in parametrizations.named_parameters() if n.startswith("original")))
        return w.detach() + first - first.detach()

    with computing(cut):
        yield


@fault("parametrizations/a_parametrized_weight_is_computed_and_differentiated_through")
def parametrizing_thaws():
    """To parametrize a frozen parameter lets it require grad."""

    def thaw(module, name):
        for p in module.parameters():
            p.requires_grad_()

    with after_registering(thaw):
        yield


@fault("parametrizations/a_parametrized_weight_is_computed_and_differentiated_through")
def parametrizing_makes_a_new_original():
    """To parametrize a parameter makes a new one, with its .grad."""

    def renew(module, name):
        held = module.parametrizations[name]
        if hasattr(held, "original"):
            old = held.original
            held.original = nn.Parameter(old.detach(), old.requires_grad)
            held.original.grad = old.grad

    with after_registering(renew):
        yield


@fault("parametrizations/a_parametrized_weight_is_computed_once_where_it_is_cached")
def nothing_is_cached():
    """parametrize.cached() does nothing."""
    with patched(parametrize, "cached", lambda _: contextlib.nullcontext):
        yield


@fault("parametrizations/a_parametrized_weight_is_computed_once_where_it_is_cached")
def the_cache_halves_gradients():
    """Within parametrize.cached() the original gets half the gradient."""

    def halve(parametrizations, true):
        w = true()
        return w * 1 if not parametrize._cache_enabled else (w + w.detach()) / 2

    with computing(halve):
        yield


@fault("parametrizations/a_parametrized_weight_is_computed_once_where_it_is_cached")
def an_inner_block_ends_the_cache():
    """At the end of a block of parametrize.cached() the cache is empty, also within another such block."""

    def make(true):
        @contextlib.contextmanager
        def cached():
            with true():
                yield
            parametrize._cache.clear()

        return cached

    with patched(parametrize, "cached", make):
        yield


@contextlib.contextmanager
def inverting(spoil):
    """Let assigning to a parametrized weight do spoil(parametrizations, value, what it does truly)."""

    def make(true):
        return lambda parametrizations, value: spoil(parametrizations, value, lambda v: true(parametrizations, v))

    with patched(parametrize.ParametrizationList, "right_inverse", make):
        yield


@fault("parametrizations/assigning_to_a_parametrized_weight_changes_the_original_in_place")
def assigning_does_not_invert():
    """A tensor assigned to a parametrized weight is written into the original as it is."""

    def write(parametrizations, value, true):
        with torch.no_grad():
            parametrizations.original.copy_(value)

    with inverting(write):
        yield


@fault("parametrizations/assigning_to_a_parametrized_weight_changes_the_original_in_place")
def assigning_makes_a_new_original():
    """A tensor assigned to a parametrized weight makes a new original."""

    def renew(parametrizations, value, true):
        true(value)
        parametrizations.original = nn.Parameter(parametrizations.original.detach())

    with inverting(renew):
        yield


@contextlib.contextmanager
def after_removing(spoil):
    """After parametrizations were removed call spoil(module, name)."""

    def make(true):
        def remove(module, name, **options):
            true(module, name, **options)
            spoil(module, name)
            return module

        return remove

    with patched(parametrize, "remove_parametrizations", make):
        yield


@fault("parametrizations/removing_parametrizations_leaves_a_leaf")
def removing_parametrizations_thaws():
    """The parameter that remove_parametrizations() leaves requires grad."""
    with after_removing(lambda module, name: module.requires_grad_()):
        yield


@fault("parametrizations/removing_parametrizations_leaves_a_leaf")
def removing_parametrizations_leaves_a_result():
    """remove_parametrizations() leaves a result of the parameter, where it requires grad."""

    def multiply(module, name):
        p = getattr(module, name)
        delattr(module, name)
        setattr(module, name, p * 1)

    with after_removing(multiply):
        yield


@fault("parametrizations/a_weight_of_several_originals_gives_each_its_gradient")
def the_second_original_is_frozen():
    """Of several originals only the first requires grad."""

    def freeze(module, name):
        second = getattr(module.parametrizations[name], "original1", None)
        if second is not None:
            second.requires_grad_(False)

    with after_registering(freeze):
        yield


@fault("parametrizations/what_is_not_there_is_not_parametrized")
def what_is_not_parametrized_is_removed_silently():
    """remove_parametrizations() does nothing where there are none."""

    def make(true):
        def remove(module, name, **options):
            return true(module, name, **options) if parametrize.is_parametrized(module, name) else module

        return remove

    with patched(parametrize, "remove_parametrizations", make):
        yield


@contextlib.contextmanager
def norming(spoil):
    """Let the weight of weight norm be spoil(module, what it is truly)."""

    def make(true):
        return lambda norm, module: spoil(module, true(norm, module))

    with patched(WeightNorm, "compute_weight", make):
        yield


@fault("parametrizations/weight_norm_gives_length_and_direction_their_gradients")
def directions_get_the_whole_gradient():
    """With weight norm the rows get twice the gradient across."""
    with norming(lambda module, w: w + module.weight_v - module.weight_v.detach()):
        yield


@fault("parametrizations/weight_norm_gives_length_and_direction_their_gradients")
def lengths_are_constants():
    """With weight norm the lengths of rows get no gradient."""
    with norming(lambda module, w: w.detach() + module.weight_v - module.weight_v.detach()):
        yield
