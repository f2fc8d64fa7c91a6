"""What becomes of a result: the decision on a claim, the ledger of a run, what a terminal and the pages say."""

VERDICTS = {
    "holds": "the claim holds",
    "broken": "a counterexample was found",
    "vacuous": "too few examples really exercised the claim",
    "undecided": "the run crashed, hung or contradicted itself",
    "not applicable": "a capability is missing, or the release is out of the claim's range",
}
FAILING = ("broken", "vacuous", "undecided")
