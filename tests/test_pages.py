"""The pages are what specs, documents and ledgers say, and every statement is accounted for."""

import importlib
from pathlib import Path

import pytest

from specs import CHAPTERS
from specs.documents import DocumentError, documents, read, statements
from specs.kit.claim import CLAIMS
from specs.verdicts import pages
from specs.verdicts.ledger import read as read_ledger

from . import all_claims
from .faults import FAULTS
from .faults.__main__ import PAGE

all_claims()


def test_no_page_is_stale():
    assert [str(path) for path in pages.stale()] == [], "run `python -m specs pages`"


def test_the_page_of_faults_names_every_fault_and_claim():
    text = PAGE.read_text(encoding="utf-8")
    missing = [name for name in [*FAULTS, *CLAIMS] if f"`{name}`" not in text]
    assert missing == [], "run `python -m tests.faults`"


def test_every_module_of_the_specification_is_a_chapter():
    modules = {p.stem for p in Path(pages.ROOT, "specs").glob("*.py")} - {"__init__", "__main__"}
    assert modules == set(CHAPTERS)
    for chapter in CHAPTERS:
        assert importlib.import_module(f"specs.{chapter}").__doc__, f"{chapter} doesn't say what it is about"
        assert any(claim.chapter == chapter for claim in CLAIMS.values()), f"{chapter} claims nothing"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_can_be_read_in_one_sitting(chapter):
    lines = Path(pages.ROOT, "specs", f"{chapter}.py").read_text(encoding="utf-8").count("\n")
    claims = sum(claim.chapter == chapter for claim in CLAIMS.values())
    assert (lines <= 500, claims <= 30) == (True, True), f"{lines} lines, {claims} claims: split it by subject"


@pytest.mark.parametrize("statement", statements())
def test_a_statement_is_claimed_or_says_why_not(statement):
    if statements()[statement].finding == "undecidable":
        assert not pages.citing(statements()[statement])
    else:
        assert pages.citing(statements()[statement]), f"no claim cites {statement}"


def test_the_ledger_of_the_pinned_release_has_every_claim():
    ledger = read_ledger(pages.RESULTS / "torch-2.13.0-cpu.json")
    assert {record["claim"] for record in ledger["verdicts"]} == CLAIMS.keys()


@pytest.mark.parametrize(
    ("text", "telling"),
    [
        ("title = ", "cannot be read as a document"),
        ('about = "a"', "lacks title"),
        ('title = "t"\nabout = "a"\n[[statement]]\nkey = "k"', "lacks finding, says, where"),
        (
            'title = "t"\nabout = "a"\n[[statement]]\nkey = "k"\nsays = "s"\nwhere = "w"\nfinding = "maybe"',
            "'maybe' is none of",
        ),
        (
            'title = "t"\nabout = "a"\n[[statement]]\nkey = "k"\nsays = "s"\nwhere = "w"\nfinding = "refuted"',
            "must say why",
        ),
        (
            'title = "t"\nabout = "a"\n' + '[[statement]]\nkey = "k"\nsays = "s"\nwhere = "w"\nfinding = "holds"\n' * 2,
            "the key is taken",
        ),
    ],
)
def test_a_document_that_cannot_stand_is_refused_in_one_sentence(tmp_path, text, telling):
    path = tmp_path / "sample.toml"
    path.write_text(text)
    with pytest.raises(DocumentError, match=telling) as refused:
        read(path)
    assert len(str(refused.value).splitlines()) == 1


def test_the_article_is_there_whole():
    assert len(documents()["article"].statements) == 41
