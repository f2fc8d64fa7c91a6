"""Random programs: what happens between the claims of the other chapters.

A program is a sequence of tensor statements: operations, views, writes, modes, hooks, backwards. PyTorch and
the tape, a reference model of autograd (`specs/tape/`), run it side by side; after each statement the claims
here compare what both show of every tensor that has a name. Programs that once showed something stand in
`specs/corpus/` and come first.
"""

from hypothesis import given

from .kit import claim
from .kit.corpus import replayed
from .kit.drawing import programs
from .kit.lockstep import lock_step

# Hooks and retained gradients have claims of their own: older releases fail in them.
PLAIN = {"hook": 0, "unhook": 0, "retain_grad": 0}
NEEDS = ["float64", "float32", "complex128", "in-place", "views"]  # any program may contain any of them


@claim(
    cites=["autograd_mechanics/forward-computes-and-builds-the-graph", "torch_tensor/detached-shares-storage"],
    needs=NEEDS,
    reaches=["statement result", "statement view", "statement in place"],
)
@given(program=programs(view=10, several=3, write=8, quiet_write=5, **PLAIN))
@replayed
def spec_every_tensor_has_the_numbers_of_its_definition(world, program):
    """Whatever autograd records, an operation gives its numbers, shape and dtype, and a write shows in all
    tensors that share its memory and in no other one."""
    for step in lock_step(world, program):
        step.agree_on("values")


@claim(
    cites=[
        "autograd_mechanics/tracked-if-an-input-requires-grad",
        "autograd_mechanics/requires-grad-is-false-by-default",
        "autograd_mechanics/non-leaves-require-grad",
        "torch_tensor/requires-grad-in-place-sets-the-flag",
        "torch_tensor/retains-grad-tells",
    ],
    needs=NEEDS,
    reaches=["statement requires_grad_", "statement detach", "statement in place", "statement enter"],
)
@given(program=programs(requires_grad_=4, detach=3, write=8, enter=4, **PLAIN))
@replayed
def spec_requires_grad_spreads_from_operands_to_results(world, program):
    """A result requires grad exactly if it was recorded and an operand requires grad; a tensor that is written
    with one that requires grad does so from then on, and its views with it; nothing else changes the flag but
    requires_grad_ and detach_."""
    for step in lock_step(world, program):
        step.agree_on("requires_grad")


@claim(
    cites=[
        "torch_tensor/no-requires-grad-is-leaf",
        "torch_tensor/results-that-require-grad-are-not-leaves",
        "torch_tensor/user-made-tensors-are-leaves",
        "autograd_mechanics/grad-fn-is-the-way-into-the-graph",
    ],
    needs=NEEDS,
    reaches=["statement result", "statement view", "statement in place"],
)
@given(program=programs(view=8, write=8, detach_=3, **PLAIN))
@replayed
def spec_what_was_recorded_has_a_grad_fn_and_is_no_leaf(world, program):
    """A tensor is a leaf if it doesn't require grad or no recorded operation made it; all others have a
    grad_fn, those among them that became results by a write."""
    for step in lock_step(world, program):
        step.agree_on("history")


@claim(
    cites=[
        "autograd_mechanics/chain-rule-from-roots-to-leaves",
        "autograd_mechanics/only-leaves-that-require-grad-accumulate",
        "torch_autograd/backward-accumulates",
        "torch_autograd/backward-gives-vector-jacobian-products",
        "torch_autograd/backward-writes-into-its-inputs-only",
        "torch_tensor/only-leaves-get-grad",
    ],
    needs=NEEDS,
    reaches=["statement backward", "statement result", "statement view"],
)
@given(program=programs(backward=14, result=20, leaf=3, **PLAIN))
@replayed
def spec_backward_adds_the_exact_gradient_and_changes_nothing_else(world, program):
    """A backward adds to .grad of each leaf, or of each of its inputs, exactly the gradient by the chain rule;
    no other .grad changes, and no tensor."""
    for step in lock_step(world, program):
        step.agree_on("gradients", "values")


@claim(
    cites=["autograd_mechanics/no-error-means-right-gradients", "autograd_mechanics/changed-saved-tensor-raises"],
    needs=NEEDS,
    reaches=["statement in place", "statement backward"],
)
@given(program=programs(write=18, quiet_write=9, backward=14, view=9, leaf=1, **PLAIN))
@replayed
def spec_a_write_never_makes_a_gradient_silently_wrong(world, program):
    """If tensors of a graph are written in place, directly or through views, recorded or not, a backward either
    gives the gradient of what was computed or is an error that tells of the write; it is an error only if
    something was written."""
    for step in lock_step(world, program):
        step.agree_on("gradients", "values")


@claim(
    cites=[
        "autograd_mechanics/requires-grad-is-set-on-leaves-only",
        "torch_tensor/backward-on-other-tensors-needs-a-gradient",
        "torch_tensor/views-cannot-be-detached-in-place",
        "torch_autograd/unused-inputs-are-an-error-unless-allowed",
        "torch_autograd/graph-is-freed-unless-retained",
        "torch_autograd/only-floating-point-and-complex",
    ],
    needs=NEEDS,
    reaches=["statement backward", "statement in place", "statement grad"],
)
@given(program=programs(backward=12, grad=6, write=10, requires_grad_=4, detach_=4, **PLAIN))
@replayed
def spec_an_error_leaves_everything_as_it_was(world, program):
    """What autograd refuses (a write to a leaf that requires grad, a backward through a freed graph, from what
    doesn't require grad or without the gradient that it needs, an unused input, ...) is a RuntimeError, and no
    tensor, flag or history is changed by it, but for a write to an inference tensor, which is done all the same."""
    for step in lock_step(world, program):
        if step.failed:
            step.agree_on("values", "requires_grad", "history", "gradients", "modes")


@claim(observed=True, needs=NEEDS, reaches=["statement in place", "statement detach", "statement view"])
@given(program=programs(write=10, quiet_write=8, detach=4, data=3, **PLAIN))
@replayed
def spec_each_write_counts_once_for_all_that_share_memory(world, program):
    """Each write in place raises the version counter by one, for the tensor, for its base and views and for what
    was detached from them; through .data nobody notices it; nothing else moves a counter."""
    for step in lock_step(world, program):
        step.agree_on("versions")


@claim(
    cites=[
        "torch_tensor/hook-is-called-with-each-gradient",
        "torch_tensor/hook-may-return-a-new-gradient",
        "torch_tensor/hook-handle-removes-the-hook",
        "autograd_mechanics/later-hooks-see-earlier-changes",
        "autograd_mechanics/hooks-see-the-value-before-a-change-in-place",
        "autograd_mechanics/hooks-registered-after-changes-see-the-last-value",
    ],
    since="2.3",
    needs=NEEDS,
    reaches=["statement hook", "statement backward"],
)
@given(program=programs(hook=10, backward=14, unhook=3))
@replayed
def spec_hooks_see_the_gradient_by_the_tensor_as_it_was_when_they_came(world, program):
    """A hook is called in each backward that has a gradient by its tensor, once, with the whole gradient by the
    value that the tensor had when the hook was registered; what a hook returns, later hooks and all that lies
    behind see in its place."""
    for step in lock_step(world, program):
        step.agree_on("hooks")


@claim(
    cites=["torch_tensor/retain-grad-fills-grad", "torch_tensor/retain-grad-does-nothing-to-leaves"],
    since="2.3",
    needs=NEEDS,
    reaches=["statement retain_grad", "statement backward", "statement hook"],
)
@given(program=programs(retain_grad=8, hook=5, backward=14, write=6))
@replayed
def spec_a_retained_gradient_is_that_of_the_latest_value(world, program):
    """A result that retains its gradient gets in .grad the gradient by its value as it is at the backward, after
    all writes and hooks; gradients of several backwards add up."""
    for step in lock_step(world, program):
        step.agree_on("gradients", "requires_grad")


@claim(
    cites=[
        "torch_autograd/grad-returns-the-gradients",
        "torch_autograd/grad-accumulates-out-of-place-with-create-graph",
        "torch_autograd/retain-graph-is-create-graph-by-default",
    ],
    since="2.0",
    needs=NEEDS,
    reaches=["statement grad", "statement result"],
)
@given(program=programs(grad=16, backward=10, clear_grad=2, **PLAIN))
@replayed
def spec_gradients_can_be_used_and_differentiated_again(world, program):
    """autograd.grad gives the exact gradients, None for what the roots don't depend on, and leaves every .grad
    alone; with create_graph they have a history where they depend on anything, by which they can be
    differentiated again."""
    for step in lock_step(world, program):
        step.agree_on("values", "requires_grad", "gradients")


@claim(
    cites=[
        "autograd_mechanics/requires-grad-overridden-in-other-modes",
        "autograd_mechanics/no-grad-for-a-block-of-code",
        "torch_autograd/enable-grad-inside-no-grad",
        "torch_autograd/set-grad-enabled-as-a-function",
        "torch_autograd/inference-mode-records-nothing",
        "torch_autograd/inference-mode-takes-a-flag",
    ],
    needs=NEEDS,
    reaches=["statement enter", "statement leave", "statement set_grad_enabled", "mode inference_mode True"],
)
@given(program=programs(enter=9, leave=7, set_grad_enabled=3, **PLAIN))
@replayed
def spec_modes_nest_and_decide_what_is_recorded(world, program):
    """Of nested modes the innermost decides what is recorded, each is undone when it is left, and what
    inference mode makes is an inference tensor for good."""
    for step in lock_step(world, program):
        step.agree_on("modes", "requires_grad", "history")


@claim(
    cites=[
        "autograd_mechanics/no-grad-for-in-place-updates",
        "autograd_mechanics/graph-is-recreated-at-every-iteration",
    ],
    needs=NEEDS,
    reaches=["statement backward", "statement zero_grad", "mode no_grad"],
)
@given(program=programs(quiet_write=12, backward=14, zero_grad=8, clear_grad=4, leaf=1, **PLAIN))
@replayed
def spec_parameters_can_be_updated_between_backwards(world, program):
    """Leaves may be written under no_grad between backwards, with their .grad cleared, zeroed or kept: each
    later backward gives the gradient at the values that its graph was computed from."""
    for step in lock_step(world, program):
        step.agree_on("gradients", "values", "requires_grad")


@claim(
    cites=["autograd_mechanics/chain-rule-from-roots-to-leaves"],
    needs=NEEDS,
    reaches=["statement backward", "statement result"],
)
@given(program=programs(dtypes=("complex128", "complex128", "float64"), view=9, backward=14, **PLAIN))
@replayed
def spec_complex_gradients_are_the_derivatives_by_both_parts(world, program):
    """The gradient of a complex tensor holds the derivatives by its real and by its imaginary parts as the parts
    of complex numbers, through products, conjugates, views of the parts and mixtures with real tensors."""
    for step in lock_step(world, program):
        step.agree_on("gradients", "values", "hooks")
