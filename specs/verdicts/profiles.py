"""How many examples a claim is decided on: the profiles, and the rules that make runs repeatable."""

from __future__ import annotations

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity

EXAMPLES = {"quick": 25, "gate": 100, "nightly": 2000}


def load(profile: str, *, shrink: bool = True, examples: int | None = None) -> None:
    """Make `profile` the settings of every spec decided from now on.

    shrink    whether a counterexample is made as small as it can be
    examples  how many of the profile's examples to run at the most; None for all
    """
    _forget_local_constants()
    _draw_afresh()
    phases = [Phase.explicit, Phase.generate] + ([Phase.shrink] if shrink else [])
    hypothesis.settings.register_profile(
        f"autograd-{profile}",
        max_examples=examples or EXAMPLES[profile],
        phases=phases,
        # A first call on a GPU takes seconds; slowness is never a verdict.
        deadline=None,
        suppress_health_check=list(HealthCheck),
        # Past failures of one machine must not decide what another one sees.
        database=None,
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=Verbosity.quiet,
    )
    hypothesis.settings.load_profile(f"autograd-{profile}")


def _forget_local_constants() -> None:
    """Keep the examples of a claim from depending on which other modules are imported.

    Hypothesis mixes the constants that stand in a project's modules into what it generates, so one
    chapter run alone, a worker, or an installed copy would see other examples than the whole suite.
    """
    try:
        from hypothesis.internal.conjecture import providers
    except ImportError:
        return  # an older Hypothesis, which doesn't do so yet

    if hasattr(providers, "_get_local_constants"):
        nothing = providers.Constants()
        providers._get_local_constants = lambda: nothing


def _draw_afresh() -> None:
    """Make each example a new one.

    After an example Hypothesis tries five mutations of it, in which one drawn part replaces another
    of its kind. Strategies here draw a whole tensor or graph as one string of bytes, so a mutation
    mostly replaces it by zeros: fewer than a quarter of all examples would be drawn at random.
    """
    from hypothesis.internal.conjecture.engine import ConjectureRunner

    if hasattr(ConjectureRunner, "generate_mutations_from"):
        ConjectureRunner.generate_mutations_from = lambda self, data: None
