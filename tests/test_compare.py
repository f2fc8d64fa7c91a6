"""What a comparison of two ledgers says, and that nothing in a ledger gets out of hand."""

import copy
import itertools
import json
import random
import subprocess
import sys

import jsonschema
import pytest

from specs.verdicts import ledger as ledgers
from specs.verdicts.compare import FORMATS, as_markdown, as_text, compare
from specs.verdicts.pages import RESULTS, ROOT
from specs.verdicts.schema import fault

SCHEMA = json.loads(ledgers.SCHEMA.read_text())


def record(claim="leaves/one", verdict="holds", device="cpu", **more):
    made = {
        "claim": claim,
        "device": device,
        "sentence": f"{claim} is so.",
        "cites": ["torch_tensor/x"],
        "standing": "promised",
        "verdict": verdict,
        "examples": 100,
        "exercised": 100,
        "seconds": 0.1,
    }
    if verdict == "broken":
        made |= {"reason": "it is so", "expected": "1", "came": "2", "script": "import torch\nassert False\n"}
    return made | more


def ledger(*records, torch="2.6.0", **more):
    environment = {"torch": torch, "torch_git": None, "torch_cuda": None, "torch_debug": False}
    environment |= {"python": "3.11.7", "hypothesis": "6.1", "platform": "Linux"}
    made = {"schema": 1, "suite": "0.1", "profile": "gate", "example_seed": 0, "complete": True}
    made |= {"environment": environment, "devices": {"cpu": {"name": "x"}}, "verdicts": list(records)}
    made["docstrings"] = {"torch.x": {"fingerprint": "0" * 16, "statements": ["torch_tensor/x"]}}
    made |= more
    jsonschema.validate(made, SCHEMA)
    return made


@pytest.mark.parametrize(
    ("before", "after", "kind", "gates"),
    [
        ("holds", "broken", "newly broken", True),
        ("not applicable", "broken", "newly broken", True),
        ("holds", "undecided", "newly failing", True),
        ("holds", "vacuous", "newly failing", True),
        ("broken", "undecided", "changed", False),
        ("holds", "not applicable", "no longer made", False),
        ("broken", "holds", "newly holding", False),
        ("not applicable", "holds", "newly made", False),
    ],
)
@pytest.mark.parametrize("standing", ["promised", "observed"])
def test_each_change_has_its_kind(before, after, kind, gates, standing):
    one, other = ledger(record(verdict=before)), ledger(record(verdict=after, standing=standing), torch="2.7.0")
    comparison = compare(one, other)
    (change,) = comparison.changes
    assert (change.kind, comparison.gates) == (kind, gates and standing == "promised")
    text = as_text(comparison)
    assert kind.upper() in text
    assert "leaves/one is so." in text
    assert "torch 2.6.0 to torch 2.7.0" in text
    assert ("assert False" in text) == (after == "broken")


@pytest.mark.parametrize("verdict", ["holds", "broken", "not applicable"])
def test_what_is_as_before_is_only_counted(verdict):
    comparison = compare(ledger(record(verdict=verdict)), ledger(record(verdict=verdict)))
    assert comparison.changes == ()
    assert not comparison.gates
    assert (comparison.unchanged, comparison.still_failing) == ((0, 1) if verdict == "broken" else (1, 0))


def test_what_fails_as_expected_is_a_change_that_gates_nothing():
    about = {"verdict": "broken", "reason": "known <since> long", "met": True}
    comparison = compare(ledger(record()), ledger(record(verdict="broken", expectation=about), torch="2.7.0"))
    assert ([c.kind for c in comparison.changes], comparison.gates) == (["newly broken"], False)
    assert "it is expected to fail: known <since> long" in as_text(comparison)
    assert "(expected: known &lt;since&gt; long)" in as_markdown(comparison)
    unmet = record(verdict="broken", expectation=about | {"met": False})
    assert compare(ledger(record()), ledger(unmet)).gates


def test_claims_that_only_one_ledger_has_are_new_or_gone():
    comparison = compare(ledger(record("a/old"), record("a/both")), ledger(record("a/both"), record("a/fresh")))
    assert [(c.kind, c.claim) for c in comparison.changes] == [("new", "a/fresh"), ("gone", "a/old")]
    comparison = compare(ledger(record("a/old")), ledger(), asked=lambda claim: False)
    assert comparison.changes == ()


def test_a_renamed_claim_is_compared_with_itself():
    renamed = record("a/fresh", "broken", formerly=["a/old"])
    (change,) = compare(ledger(record("a/old")), ledger(renamed)).changes
    assert (change.kind, change.claim) == ("newly broken", "a/fresh")


def test_the_claims_behind_a_changed_docstring_are_named():
    docstrings = {"torch.x": {"fingerprint": "1" * 16, "statements": ["torch_tensor/x"]}}
    comparison = compare(ledger(record()), ledger(record(), docstrings=docstrings))
    assert [(d.name, d.how, d.claims) for d in comparison.docstrings] == [("torch.x", "changed", ("leaves/one",))]
    assert all("torch.x" in form(comparison) for form in FORMATS.values())


@pytest.mark.parametrize(
    ("more", "telling"),
    [
        ({"suite": "0.0"}, "suites differ"),
        ({"profile": "quick"}, "profiles differ"),
        ({"example_seed": 3}, "Other examples"),
        ({"complete": False}, "interrupted"),
        ({"devices": {"cpu": {"name": "x"}, "cuda": {"name": "y"}}}, "Only the first run was on cuda"),
    ],
)
def test_what_is_not_sound_is_said(more, telling):
    comparison = compare(ledger(record(), **more), ledger(record()))
    assert any(telling in caveat for caveat in comparison.caveats)
    assert all(telling in form(comparison) for form in FORMATS.values())
    assert compare(ledger(record()), ledger(record())).caveats == ()


def test_a_device_that_only_one_run_had_is_not_compared():
    both = {"cpu": {"name": "x"}, "cuda": {"name": "y"}}
    one = ledger(record(), record(device="cuda"), devices=both)
    assert compare(one, ledger(record())).changes == ()


def test_text_of_a_ledger_cannot_become_markup():
    evil = "<img src=x onerror=alert(1)> [link](javascript:1) | `x` **bold** ``` @everyone\n\n# head"
    script = "```\n<script>alert(1)</script>\n````"
    broken = record(
        verdict="broken", sentence=evil, reason=evil, expected=evil, came=evil, script=script, releases=evil
    )
    text = as_markdown(compare(ledger(record()), ledger(broken)))
    outside = text.partition("`````python")[0]
    assert "<img" not in text
    assert "[link](" not in text
    assert "**bold**" not in outside
    assert "\n# head" not in text
    assert text.count("`````") == 2  # the script's fence is longer than any in it


def test_text_of_a_ledger_cannot_control_the_terminal():
    broken = record(verdict="broken", sentence="\x1b[2J\x07", script="\x1b]0;title\x07\r\n")
    text = as_text(compare(ledger(record()), ledger(broken)))
    assert all(character == "\n" or character.isprintable() for character in text)
    assert "\\x1b" in text


def run(*arguments):
    command = [sys.executable, "-m", "specs", "compare", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_command_tells_by_its_exit_code(tmp_path):
    good, bad, torn = tmp_path / "good.json", tmp_path / "bad.json", tmp_path / "torn.json"
    good.write_text(json.dumps(ledger(record())))
    bad.write_text(json.dumps(ledger(record(verdict="broken"))))
    torn.write_text(good.read_text()[:200])
    same, worse, refused = run(good, good), run(good, bad, "--format", "json"), run(good, torn)
    assert (same.returncode, worse.returncode, refused.returncode) == (0, 1, 2)
    assert json.loads(worse.stdout)["gates"] is True
    assert refused.stderr.count("\n") == 1
    assert "is not a ledger" in refused.stderr


COMMITTED = sorted(RESULTS.glob("*.json"))


@pytest.mark.parametrize("pair", list(itertools.pairwise(COMMITTED)), ids=lambda pair: pair[1].name)
def test_committed_ledgers_can_be_compared(pair):
    comparison = compare(*map(ledgers.read, pair))
    assert not comparison.gates


def mutated(text, random):
    """The JSON text with one thing wrong in it: cut off, changed in a character, or another value somewhere."""
    kind = random.randrange(4)
    if kind == 0:
        return text[: random.randrange(len(text))]
    if kind == 1:
        at = random.randrange(len(text))
        return text[:at] + random.choice('{}[]",:0x\\\x00\ud7ff') + text[at + 1 :]
    tree = json.loads(text)
    node = tree
    while isinstance(node, (dict, list)) and node:
        key = random.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if not isinstance(node[key], (dict, list)) or not node[key] or random.random() < 0.2:
            break
        node = node[key]
    junk = [None, -1, 1e400, "", "x" * 5000, [], {}, [[]], True, "\x1b[31m", {"a": {"b": []}}, 10**40]
    if kind == 2 or isinstance(node, list):
        node[key] = random.choice(junk)
    else:
        del node[key]
    return json.dumps(tree)


def test_a_thousand_altered_ledgers_are_compared_or_refused(tmp_path):
    path, whole = tmp_path / "ledger.json", ledger(record(), record("a/b", "broken", releases="since 2.0"))
    text, chance, refused = json.dumps(whole), random.Random(0), 0
    for _ in range(1000):
        path.write_text(mutated(text, chance), encoding="utf-8", errors="surrogatepass")
        try:
            altered = ledgers.read(path)
        except ledgers.LedgerError as error:
            refused += "\n" not in str(error)
            continue
        for pair in ((whole, altered), (altered, whole)):
            comparison = compare(*pair)
            assert all(form(comparison) for form in FORMATS.values())
    assert refused > 300


def test_our_check_agrees_with_json_schema():
    whole, chance = ledger(record(), record("a/b", "broken")), random.Random(1)
    validator = jsonschema.Draft202012Validator(SCHEMA)
    assert fault(SCHEMA, whole) is None
    for _ in range(300):
        try:
            altered = json.loads(mutated(json.dumps(copy.deepcopy(whole)), chance))
        except ValueError:
            continue
        assert (fault(SCHEMA, altered) is None) == validator.is_valid(altered), altered
