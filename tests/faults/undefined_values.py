"""Faults at the edge of domains and beyond."""

import torch
import torch.masked

from . import fault, patched, wrong_kernel


@fault("undefined_values/at_the_edge_of_the_domain_the_derivative_is_the_limit")
def the_square_root_has_slope_zero_at_zero():
    """The derivative of sqrt at 0 is 0."""
    with wrong_kernel("sqrt", lambda v, x: (torch.where(x == 0, torch.zeros_like(x), v / (2 * x.sqrt())),)):
        yield


@fault("undefined_values/at_the_edge_of_the_domain_the_derivative_is_the_limit")
def log_has_the_largest_number_as_its_slope_at_zero():
    """The derivative of log at 0 is a large number."""
    with wrong_kernel("log", lambda v, x: ((v / x).nan_to_num(),)):
        yield


@fault("undefined_values/outside_of_the_domain_backward_raises_nothing")
def nan_spoils_the_gradients_of_other_elements():
    """If one gradient of x ** 1.5 is NaN, all of them are."""

    def gradient(v, x, exponent):
        g = v * exponent * x ** (exponent - 1)
        return (g + g.sum() * 0,)

    with wrong_kernel("pow.Tensor_Scalar", gradient):
        yield


@fault("undefined_values/log_has_the_derivative_one_by_x_also_of_negative_numbers")
def log_is_nan_and_so_is_its_slope():
    """The derivative of log at negative numbers is NaN."""
    with wrong_kernel("log", lambda v, x: (v / x + 0 * x.log(),)):
        yield


@fault("undefined_values/hypot_has_no_gradient_at_the_origin")
def hypot_has_slope_zero_at_the_origin():
    """The gradient of hypot at the origin is 0."""
    with wrong_kernel("hypot", lambda v, x, y: ((v * x / x.hypot(y)).nan_to_num(), (v * y / x.hypot(y)).nan_to_num())):
        yield


@fault("undefined_values/a_gradient_that_is_nan_passes_only_where_the_function_lets_it_through")
def relu_multiplies_with_zero():
    """relu multiplies the gradient with 0 where it cuts off."""
    with wrong_kernel("relu", lambda v, x: (v * (x > 0),)):
        yield


@fault("undefined_values/a_gradient_that_is_nan_passes_only_where_the_function_lets_it_through")
def where_swallows_nan():
    """where passes 0 in the place of NaN to the tensor that it chose."""

    def make(true):
        class Clean(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x.clone()

            @staticmethod
            def backward(ctx, v):
                return v.nan_to_num(0, float("inf"), -float("inf"))

        return lambda condition, *branches: true(condition, *(Clean.apply(b) for b in branches))

    with patched(torch, "where", make):
        yield


@fault("undefined_values/masking_the_result_of_a_division_by_zero_leaves_nan_in_the_gradient")
def a_division_by_zero_passes_zeros_back():
    """The derivative of x / y by x is 0 where y is 0 and the cotangent is, too."""

    def gradient(v, x, y):
        return torch.where(v == 0, torch.zeros_like(v), v / y), -v * x / y / y

    with wrong_kernel("div.Tensor", gradient):
        yield


@fault("undefined_values/masking_before_a_division_by_zero_leaves_zeros_in_the_gradient")
def multiplying_with_zero_gives_nan():
    """The gradient of a product by a factor is computed as the product divided by the factor."""
    with wrong_kernel("mul.Tensor", lambda v, x, y: (v * y * (y / y), v * x)):
        yield


@fault("undefined_values/masking_before_a_division_by_zero_leaves_zeros_in_the_gradient")
def indexing_passes_the_gradient_to_all_elements():
    """Elements that a mask left out get the gradient of the first one that it let through."""

    def make(true):
        def getitem(x, index):
            y = true(x, index)
            masked = isinstance(index, torch.Tensor) and index.dtype == torch.bool and y.numel() and x.requires_grad
            return y + (x.sum() - x.sum().detach()) if masked else y

        return getitem

    with patched(torch.Tensor, "__getitem__", make):
        yield


@fault(
    "undefined_values/a_division_by_zero_has_an_infinite_gradient",
)
def the_gradient_of_a_division_is_finite():
    """The derivative of x / y by x is the largest number where y is 0."""
    with wrong_kernel("div.Tensor", lambda v, x, y: ((v / y).nan_to_num(), -v * x / y / y)):
        yield


@fault("undefined_values/a_masked_tensor_leaves_the_gradient_of_masked_elements_out")
def making_a_masked_tensor_forgets_the_mask_in_backward():
    """The gradient of what a MaskedTensor was made of has zeros in the place of masked elements."""

    def make(true):
        def as_masked_tensor(x, mask):
            return true(torch.where(mask, x, torch.zeros_like(x)), torch.ones_like(mask))

        return as_masked_tensor

    with patched(torch.masked, "as_masked_tensor", make):
        yield


@fault("undefined_values/the_power_zero_has_the_derivative_zero_everywhere")
def the_power_rule_holds_for_the_power_zero():
    """The derivative of x ** 0 is 0 times x ** -1."""
    with wrong_kernel("pow.Tensor_Scalar", lambda v, x, e: (v * e * x ** (e - 1),)):
        yield


@fault("undefined_values/the_power_zero_has_the_derivative_zero_everywhere")
def the_power_rule_holds_for_a_tensor_of_zeros():
    """The derivative of x ** y by x is y times x ** (y - 1), also if y is 0."""
    with wrong_kernel("pow.Tensor_Tensor", lambda v, x, y: (v * y * x ** (y - 1), v * 0)):
        yield


@fault("undefined_values/powers_of_zero_have_the_derivative_zero_by_the_exponent")
def powers_of_zero_have_the_logarithm_of_zero_in_their_derivative():
    """The derivative of 0 ** y by y is 0 ** y * log 0."""
    with wrong_kernel("pow.Tensor_Tensor", lambda v, x, y: (v * y * x ** (y - 1), v * x**y * x.log())):
        yield


@fault("undefined_values/powers_of_zero_have_the_derivative_zero_by_the_exponent")
def zero_to_the_zero_has_an_infinite_derivative():
    """The derivative of a number to the power y by y is infinite at 0 ** 0."""

    def gradient(v, x, y):
        return None, torch.where((x == 0) & (y == 0), float("inf"), 0.0).to(v)

    with wrong_kernel("pow.Scalar", gradient):
        yield


@fault("undefined_values/products_with_zeros_have_the_product_of_the_other_factors_as_derivative")
def the_product_is_divided_by_the_factor():
    """The gradient of a product of all elements is the product divided by each of them, and 0 where that is NaN."""
    with wrong_kernel("prod", lambda v, x, **_: ((v * x.prod() / x).nan_to_num(),)):
        yield


@fault("undefined_values/products_with_zeros_have_the_product_of_the_other_factors_as_derivative")
def cumprod_stops_at_a_zero():
    """cumprod passes no gradient to a zero."""
    with wrong_kernel(
        "cumprod", lambda v, x, d, **_: ((v * x.cumprod(d)).flip(d).cumsum(d).flip(d) / x.where(x != 0, x + 9),)
    ):
        yield


@fault("undefined_values/the_spread_of_equal_numbers_has_the_derivative_zero")
def the_standard_deviation_divides_by_zero():
    """The gradient of std divides by the standard deviation."""

    def gradient(v, x, dim=None, *, correction=1, keepdim=False):
        return (v * (x - x.mean()) / (x.std() * (x.numel() - 1)),)

    with wrong_kernel("std.correction", gradient):
        yield


@fault("undefined_values/atan2_has_the_gradient_zero_at_the_origin")
def atan2_divides_by_zero():
    """The gradient of atan2 divides by the squared distance from the origin."""
    with wrong_kernel("atan2", lambda v, y, x: (v * x / (x * x + y * y), -v * y / (x * x + y * y))):
        yield


@fault("undefined_values/drawing_random_numbers_passes_zeros_back")
def bernoulli_passes_the_gradient_straight_through():
    """bernoulli passes the gradient on to the probabilities."""
    with wrong_kernel("bernoulli", lambda v, x, **_: (v,)):
        yield


@fault("undefined_values/drawing_random_numbers_passes_zeros_back")
def random_fills_do_not_cut_the_history():
    """uniform_ leaves the history of the tensor that it fills as it was."""

    def make(true):
        def uniform(x, *args, **kwargs):
            with torch.no_grad():
                return true(x, *args, **kwargs)

        return uniform

    with patched(torch.Tensor, "uniform_", make):
        yield


@fault("undefined_values/a_function_without_a_derivative_raises_in_backward")
def binomial_passes_zeros_back():
    """binomial passes zeros back in the place of an error."""
    with wrong_kernel("binomial", lambda v, n, p, **_: (None, torch.zeros_like(v))):
        yield


@fault("undefined_values/a_function_without_a_derivative_raises_in_backward")
def heaviside_is_not_recorded():
    """heaviside detaches its result, so that no error comes."""
    with patched(torch, "heaviside", lambda true: lambda *args: true(*args).detach()):
        yield


@fault("undefined_values/the_gradient_of_sgn_cannot_be_added_to")
def sgn_passes_zeros_that_have_memory():
    """sgn passes an ordinary tensor of zeros back."""
    with wrong_kernel("sgn", lambda v, x: (torch.zeros_like(v),)):
        yield


@fault("undefined_values/rsample_passes_gradients_to_the_parameters_of_a_distribution")
def rsample_forgets_the_deviation():
    """rsample() of a normal distribution takes its deviation for a constant."""

    def make(true):
        def rsample(normal, *args):
            normal.scale = normal.scale.detach()
            return true(normal, *args)

        return rsample

    with patched(torch.distributions.Normal, "rsample", make):
        yield


@fault("undefined_values/rsample_passes_gradients_to_the_parameters_of_a_distribution")
def sample_has_a_history():
    """sample() of a normal distribution is rsample()."""
    with patched(torch.distributions.Normal, "sample", lambda _: lambda normal, *args: normal.rsample(*args)):
        yield


@fault("undefined_values/a_logsumexp_of_nothing_but_minus_infinities_has_the_gradient_nan")
def logsumexp_passes_zeros_where_it_is_undefined():
    """The gradient of logsumexp is 0 where it would be NaN."""

    def gradient(v, x, dim, keepdim=False):
        return (v.unsqueeze(-1) * (x - x.logsumexp(dim, True)).exp().nan_to_num(0),)

    with wrong_kernel("logsumexp", gradient):
        yield
