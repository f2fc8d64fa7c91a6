"""Faults at kinks, ties and steps."""

import torch

from . import fault, patched, wrong_kernel


@fault("nondifferentiable/between_its_kinks_a_function_of_straight_lines_has_the_slope_of_the_line")
def relu_begins_at_one():
    """relu passes no gradient to elements up to 1."""
    with wrong_kernel("relu", lambda v, x: (v * (x > 1),)):
        yield


@fault("nondifferentiable/between_its_kinks_a_function_of_straight_lines_has_the_slope_of_the_line")
def hardtanh_forgets_its_lower_bound():
    """hardtanh passes the gradient on below its lower bound."""
    with wrong_kernel("hardtanh", lambda v, x, low, high: (v * (x < high),)):
        yield


@fault("nondifferentiable/at_a_kink_the_slope_of_the_smallest_magnitude_is_taken")
def abs_has_slope_one_at_zero():
    """The derivative of abs at 0 is 1."""
    with wrong_kernel("abs", lambda v, x: (torch.where(x >= 0, v, -v),)):
        yield


@fault("nondifferentiable/at_a_kink_the_slope_of_the_smallest_magnitude_is_taken")
def softshrink_passes_the_gradient_at_its_upper_kink():
    """softshrink passes the gradient on at its upper kink."""
    with wrong_kernel("softshrink", lambda v, x, bound: (v * ((x >= bound) | (x < -bound)),)):
        yield


@fault("nondifferentiable/leaky_relu_and_elu_have_the_slope_of_the_negative_side_at_zero")
def leaky_relu_takes_the_smaller_slope():
    """leaky_relu takes the slope 1 at 0 if the other one is larger."""
    with wrong_kernel(
        "leaky_relu", lambda v, x, s=0.01: (torch.where(x > 0, v, v * torch.where(x < 0, s, min(s, 1))),)
    ):
        yield


@fault("nondifferentiable/leaky_relu_and_elu_have_the_slope_of_the_negative_side_at_zero")
def elu_has_slope_one_at_zero():
    """elu takes the slope 1 at 0."""
    with wrong_kernel("elu", lambda v, x, a=1, *_: (v * torch.where(x >= 0, 1.0, a * x.exp()),)):
        yield


@fault("nondifferentiable/clamp_passes_the_whole_gradient_at_its_bound")
def clamp_passes_nothing_at_its_bounds():
    """clamp with a lower bound passes no gradient on where the element is the bound."""

    def gradient(v, x, low=None, high=None):
        inside = (x > low) if low is not None else torch.ones_like(x, dtype=torch.bool)
        return (v * (inside & (x <= high) if high is not None else inside),)

    with wrong_kernel("clamp", gradient):
        yield


@fault("nondifferentiable/clamp_passes_no_gradient_at_its_bound")
def clamp_passes_everything_at_its_bounds():
    """clamp passes the whole gradient on where the element is the bound."""

    def gradient(v, x, low=None, high=None):
        inside = (x >= low) if low is not None else torch.ones_like(x, dtype=torch.bool)
        return (v * (inside & (x <= high) if high is not None else inside),)

    with wrong_kernel("clamp", gradient):
        yield


@fault("nondifferentiable/hardswish_has_the_slope_of_the_smallest_magnitude_at_its_kinks")
def hardswish_takes_the_slope_inside():
    """hardswish takes the slope of the parabola at its upper kink."""
    with wrong_kernel("hardswish", lambda v, x: (v * torch.where(x > 3, 1.0, (x / 3 + 0.5) * (x > -3)),)):
        yield


@fault(
    "nondifferentiable/the_derivative_of_a_norm_at_zero_is_zero",
    "nondifferentiable/a_vector_of_zeros_does_not_disturb_the_norms_beside_it",
)
def norms_divide_by_zero():
    """The gradient of the Euclidean norm divides by the norm."""

    def gradient(v, x, p=2, dim=None, keepdim=False, **_):
        norm = x.square().sum(dim, keepdim=True).sqrt() if dim else x.square().sum().sqrt()
        return ((v.reshape(norm.shape)) * (x / norm) if p == 2 else torch.zeros_like(x),)

    with wrong_kernel("linalg_vector_norm", gradient):
        yield


@fault("nondifferentiable/a_vector_of_zeros_does_not_disturb_the_norms_beside_it")
def a_vector_of_zeros_silences_all_norms():
    """If one of several norms is 0, none of them passes a gradient."""

    def gradient(v, x, p=2, dim=None, keepdim=False, **_):
        norm = x.square().sum(dim, keepdim=True).sqrt() if dim else x.square().sum().sqrt()
        return (v.reshape(norm.shape) * (x / norm) if bool((norm != 0).all()) else torch.zeros_like(x),)

    with wrong_kernel("linalg_vector_norm", gradient):
        yield


@fault("nondifferentiable/the_extreme_elements_of_a_tensor_share_the_gradient")
def every_maximal_element_gets_the_whole_gradient():
    """amax passes the whole gradient to each of the maximal elements."""
    with wrong_kernel("amax", lambda v, x, *_: (v * (x == x.max()),)):
        yield


@fault("nondifferentiable/the_extreme_elements_of_a_tensor_share_the_gradient")
def the_first_of_three_minima_gets_everything():
    """min of all elements passes the gradient to the first minimal one if there are three of them or more."""

    def gradient(v, x):
        minimal = x == x.min()
        first = minimal & (minimal.cumsum(0) == 1) if minimal.sum() > 2 else minimal
        return (v * first / first.sum(),)

    with wrong_kernel("min", gradient):
        yield


@fault("nondifferentiable/two_equal_elements_share_the_gradient_of_their_maximum")
def maximum_prefers_the_first():
    """maximum passes the whole gradient to the first of two equal elements."""
    with wrong_kernel("maximum", lambda v, x, y: (v * (x >= y), v * (x < y))):
        yield


@fault("nondifferentiable/two_equal_elements_share_the_gradient_of_their_maximum")
def minimum_gives_all_of_a_tie_to_the_one_that_requires_grad():
    """minimum passes the whole gradient of two equal elements to the second one if only that requires grad."""

    def make(true):
        def minimum(x, y):
            if isinstance(x, torch.Tensor) and not x.requires_grad:
                return true(torch.where(x == y, x + 1, x), y)
            return true(x, y)

        return minimum

    with patched(torch, "minimum", make):
        yield


@fault("nondifferentiable/fmax_and_clamp_give_the_gradient_of_equal_elements_to_the_first")
def fmax_shares():
    """fmax shares the gradient between equal elements."""
    with wrong_kernel("fmax", lambda v, x, y: (v * ((x > y) + 0.5 * (x == y)), v * ((x < y) + 0.5 * (x == y)))):
        yield


@fault("nondifferentiable/equal_elements_share_the_gradient_of_fmax_and_clamp")
def fmin_prefers_the_first():
    """fmin passes the whole gradient to the first of two equal elements."""
    with wrong_kernel("fmin", lambda v, x, y: (v * (x <= y), v * (x > y))):
        yield


@fault("nondifferentiable/the_gradient_goes_to_the_elements_that_the_indices_name")
def the_maximum_along_a_dimension_is_shared():
    """max along a dimension shares the gradient between equal elements, whatever its indices say."""

    def make(true):
        def max_along(x, *args):
            result = true(x, *args)
            return torch.return_types.max((x.amax(*args), result.indices)) if args else result

        return max_along

    with patched(torch.Tensor, "max", make):
        yield


@fault("nondifferentiable/the_gradient_goes_to_the_elements_that_the_indices_name")
def cummax_sends_the_gradient_to_the_place_of_the_value():
    """cummax passes each cotangent to the element in its own place."""

    def make(true):
        def cummax(x, dim):
            values, indices = true(x, dim)
            return values.detach() + (x - x.detach()), indices

        return cummax

    with patched(torch.Tensor, "cummax", make):
        yield


@fault("nondifferentiable/a_step_function_passes_zeros_back_also_at_its_steps")
def round_passes_the_gradient_straight_through():
    """round passes the gradient on as if it were the identity."""
    with wrong_kernel("round", lambda v, x: (v,)):
        yield


@fault("nondifferentiable/a_step_function_passes_zeros_back_also_at_its_steps")
def floor_is_not_recorded():
    """floor detaches its result."""
    with patched(torch.Tensor, "floor", lambda true: lambda x: true(x).detach()):
        yield


@fault("nondifferentiable/a_step_function_passes_zeros_back_also_at_its_steps")
def sign_has_an_infinite_slope_at_zero():
    """sign passes an infinity back where the element is 0."""
    with wrong_kernel("sign", lambda v, x: (torch.where(x == 0, float("inf"), 0.0).to(v),)):
        yield


@fault("nondifferentiable/a_remainder_has_slope_one_also_where_it_jumps")
def a_remainder_of_zero_passes_nothing():
    """remainder passes no gradient to dividends that the divisor divides."""
    with wrong_kernel("remainder.Tensor", lambda v, x, y: (v * (x % y != 0), -v * (x / y).floor())):
        yield


@fault("nondifferentiable/a_remainder_has_slope_one_also_where_it_jumps")
def fmod_rounds_down():
    """fmod takes the quotient rounded down as the derivative by the divisor."""
    with wrong_kernel("fmod.Tensor", lambda v, x, y: (v, -v * (x / y).floor())):
        yield
