"""Each change from release to release is explained, and nothing is explained that didn't change."""

import re

import pytest
from packaging.version import Version

from specs.documents import DocumentError
from specs.verdicts import changes, pages

from .test_compare import ledger, record


@pytest.fixture(scope="module")
def steps():
    """What changed between the committed ledgers."""
    return list(changes.steps(pages.ledgers()))


def test_every_change_of_the_committed_ledgers_is_explained(steps):
    unexplained = [
        f"{change.claim}: {change.kind} from {step.before} to {step.after}"
        for step in steps
        for change in changes.explain(step, changes.read()).get(None, ())
    ]
    assert unexplained == [], "say in specs/changes.toml why"


def test_everything_that_is_explained_did_change(steps):
    explained = {
        (explanation, change.claim)
        for step in steps
        for explanation, found in changes.explain(step, changes.read()).items()
        for change in found
    }
    idle = [
        (str(explanation.release), claim)
        for explanation in changes.read()
        for claim in explanation.claims
        if (explanation, claim) not in explained
    ]
    assert idle == []


def test_a_find_stands_where_its_link_leads():
    page = (pages.ROOT / "docs" / changes.FINDS).read_text(encoding="utf-8")
    heads = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
    links = {explanation.link.partition("#")[2] for explanation in changes.read() if explanation.link[:5] != "https"}
    assert links
    assert links <= anchors


def explanation(release, *claims):
    return changes.Explanation(Version(release), "It was mended.", "https://x/pull/1", claims)


def test_an_explanation_is_for_the_step_in_which_its_release_lies():
    held, made = record("a/one", "not applicable", reason="?"), record("a/one")
    runs = [
        ledger(held, torch="2.0.1+cpu"),
        ledger(made, torch="2.2.0"),
        ledger(held, torch="2.4.0"),
        ledger(held, record("a/new"), torch="2.6.0"),
    ]
    first, second, third = changes.steps(runs)
    why = [explanation("2.1", "a/one"), explanation("2.1", "a/two"), explanation("2.4", "a/one")]
    assert {e: [c.kind for c in found] for e, found in changes.explain(first, why).items()} == {why[0]: ["newly made"]}
    assert {e: [c.kind for c in found] for e, found in changes.explain(second, why).items()} == {
        why[2]: ["no longer made"]
    }
    assert list(changes.explain(second, why[:2])) == [None]
    assert third.changes == ()  # a claim that is new tells of the suite


def test_ledgers_of_other_devices_are_no_neighbours():
    runs = []
    for torch in ("2.0.0", "2.1.0"):
        for device in ("cpu", "cuda"):
            here = record("a/one", "holds" if torch == "2.0.0" else "broken", device=device)
            runs.append(ledger(here, torch=torch, devices={device: {"name": "x"}, "mps": {"not_run": "absent"}}))
    found = list(changes.steps(runs))
    assert [(str(step.before), str(step.after)) for step in found] == [("2.0.0", "2.1.0")] * 2
    assert [change.device for step in found for change in step.changes] == ["cpu", "cuda"]


ENTRY = '[[change]]\nrelease = "2.0"\nsays = "s"\nlink = "https://x"\nclaims = []\n'


@pytest.mark.parametrize(
    ("text", "telling"),
    [
        ("[[change", "cannot be read"),
        ("[other]", "unknown entry other"),
        (ENTRY.replace("says", "said"), "change 1 has not the four entries"),
        (ENTRY + ENTRY.replace("2.0", "two"), "change 2: Invalid version"),
        (ENTRY.replace("https", "ftp"), "leads neither"),
    ],
)
def test_a_file_that_cannot_stand_is_refused_in_one_sentence(tmp_path, text, telling):
    path = tmp_path / "changes.toml"
    path.write_text(ENTRY)
    assert len(changes.read(path)) == 1
    path.write_text(text)
    with pytest.raises(DocumentError, match=telling) as refused:
        changes.read(path)
    assert "\n" not in str(refused.value)
