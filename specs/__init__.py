"""The specification of PyTorch's autograd: a chapter a module, a claim a function."""

# The chapters in reading order: each builds on those before it.
CHAPTERS = (
    "graph",
    "leaves",
    "backward",
    "chain_rule",
    "accumulation",
    "intermediates",
    "hooks",
    "post_accumulate_hooks",
    "grad_modes",
    "parameters",
    "modules",
    "programs",
    "article",
)

VERSION = "0.1"  # of the suite; a ledger carries it
OLDEST_TORCH = "1.13.1"
