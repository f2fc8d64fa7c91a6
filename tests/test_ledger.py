"""Ledgers on disk: written whole or not at all, read with one sentence about what is wrong."""

import json

import jsonschema
import pytest

from specs.verdicts import ledger as ledgers
from specs.verdicts.pages import RESULTS

COMMITTED = sorted(RESULTS.glob("*.json"))


@pytest.mark.parametrize("path", COMMITTED, ids=[path.name for path in COMMITTED])
def test_a_committed_ledger_fits_the_schema_and_is_whole(path):
    ledger = ledgers.read(path)
    jsonschema.validate(ledger, json.loads(ledgers.SCHEMA.read_text()))
    assert ledger["complete"]
    assert ledger["profile"] == "gate"


@pytest.mark.parametrize(
    ("text", "telling"),
    [
        (None, "can't be read"),
        ("", "isn't JSON"),
        ("{", "isn't JSON"),
        ("[]", "is not a ledger"),
        ('{"a": 1}', "is not a ledger"),
        ('{"schema": 99}', "has schema 99"),
        ('{"schema": 1}', "the file has no 'suite'"),
    ],
)
def test_what_is_no_ledger_is_refused(tmp_path, text, telling):
    path = tmp_path / "ledger.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ledgers.LedgerError, match=telling) as refused:
        ledgers.read(path)
    assert "\n" not in str(refused.value)


def test_a_ledger_replaces_another_at_once(tmp_path):
    path = tmp_path / "ledger.json"
    ledgers.write(path, {"n": 1})
    with pytest.raises(TypeError):
        ledgers.write(path, {"n": object()})
    assert json.loads(path.read_text())["n"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["ledger.json"]


def test_checking_a_path_leaves_no_trace(tmp_path):
    ledgers.check_writable(tmp_path / "ledger.json")
    assert list(tmp_path.iterdir()) == []
