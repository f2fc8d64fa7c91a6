"""Expectations: a run that knows what fails, files that are kept up to date, and broken ones that are refused."""

import random
import subprocess
import sys
import tomllib
from dataclasses import replace
from types import SimpleNamespace

import pytest

from specs.verdicts import expectations as module
from specs.verdicts.expectations import ExpectationError, read

from .test_cli import BROKEN, CRASHES, HOLDS, NOT_APPLICABLE, OBSERVED, Checkout

COUNTEREXAMPLE = (
    '{"v": {"Values": [{"tuple": [2]}, {"tuple": [1, 1]}, "float64", "contiguous"]}, "name": "three"}'  # of BROKEN
)
MARKED = '''
@claim(cites=CITED)
@given(n=st.integers(0, 1000))
def spec_it_is_marked(world, n):
    """A number is no 7; and each example leaves a mark."""
    print(n, file=open("marks", "a"))
    same(n == MARK, False, why="it is the number")
'''


def entry(claim="it_is_broken", torch="", **more):
    pairs = {"claim": f"sample/{claim}", "torch": torch, "verdict": "broken", "reason": "nobody knows"} | more
    return "[[expectation]]\n" + "".join(f"{key} = '{value}'\n" for key, value in pairs.items())


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout whose only chapter is the sample."""
    made = Checkout(tmp_path_factory.mktemp("checkout"))
    (made.folder / "specs" / "__main__.py").write_text((module.SPECS / "__main__.py").read_text())
    chapters = made.folder / "specs" / "__init__.py"
    begin, _, rest = chapters.read_text().partition("PARTS = {")
    chapters.write_text(begin + 'PARTS = {"Sample": ("sample",)}\n' + rest.partition("\n}\n")[2])
    return made


def command(checkout, *arguments, input=None):
    line = [sys.executable, "-m", "specs", *arguments]
    return subprocess.run(line, cwd=checkout.folder, input=input, capture_output=True, text=True, check=False)


def marks(checkout):
    """Which numbers the marked claim has run with."""
    path = checkout.folder / "marks"
    left = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return left


def test_what_fails_as_expected_is_replayed_and_fails_no_run(checkout):
    (checkout.folder / "expectations.toml").write_text(
        entry(counterexample=COUNTEREXAMPLE, shows="this is wrong", link="https://example.org/1")
        + entry("it_is_marked", counterexample='{"n": 7}', device="cpu")
        + entry("it_crashes", verdict="undecided", reason="''\x9bnobody\nknows''")
        + entry("it_is_of_the_past")
        + entry("it_holds", torch="<1.0")
        + entry("it_holds", device="cuda")
    )
    claims = (HOLDS, BROKEN, MARKED.replace("MARK", "7"), CRASHES, NOT_APPLICABLE)
    done, ledger = checkout.ledger(*claims)
    assert done.returncode == 0, done.stdout
    assert marks(checkout) == ["7"]
    records = {record["claim"].partition("/")[2]: record for record in ledger["verdicts"]}
    assert {name: record["verdict"] for name, record in records.items()} == {
        "it_holds": "holds",
        "it_is_broken": "broken",
        "it_is_marked": "broken",
        "it_crashes": "undecided",
        "it_is_of_the_past": "not applicable",
    }
    assert records["it_crashes"]["reason"] == "the process died: exit code 11"
    assert records["it_crashes"]["expectation"]["reason"] == "\\x9bnobody knows"
    about = {"verdict": "broken", "reason": "nobody knows", "link": "https://example.org/1", "met": True}
    assert records["it_is_broken"]["expectation"] == about
    assert records["it_is_broken"]["examples"] == 1
    assert "expectation" not in records["it_holds"] | records["it_is_of_the_past"]
    assert "1 of 5 claims hold, 3 failing as expected, 1 not applicable" in done.stdout
    line = "expected: sample/it_is_broken [cpu] is broken: nobody knows (https://example.org/1)"
    assert line in done.stdout
    assert "BROKEN" not in done.stdout


STALE = (
    "# Kept.\n\n"
    + entry("it_holds", device="cpu", reason="gone # now")
    + "# Of the next one.\n"
    + entry("it_is_marked", counterexample='{"n": 5}', gone="").replace("gone = ''", 'gone = ["1.0 cpu"]  # of old')
    + "\n"
    + entry(counterexample=COUNTEREXAMPLE.replace("[2]", "[0]").replace("[1, 1]", "[]"), shows="other")
    + "\n[[ expectation ]]  # laid out in another way\n  'claim' = 'sample/it_holds'\n"
    + "  torch = '<1.0'\n  verdict = 'broken'\n  reason = '''\n[[nothing]]\n# at all'''\n"
    + entry(verdict="undecided", device="cuda")
)


def test_an_expectation_that_does_not_hold_fails_the_run_until_it_is_updated(checkout):
    path = checkout.folder / "mine.toml"
    (checkout.folder / "expectations.toml").unlink(missing_ok=True)
    path.write_text(STALE)
    claims = (HOLDS, BROKEN, MARKED.replace("MARK", "-1"))
    run = ("--device", "cpu", "--expectations", "mine.toml", "-n", "1")
    done = checkout.run(*claims, options=run)
    assert done.returncode == 1
    assert "UNEXPECTED sample/it_holds  [cpu]" in done.stdout
    assert "It is expected to be broken (gone # now), but it holds." in done.stdout
    assert "python -m specs expectations update" in done.stdout
    assert "UNEXPECTED sample/it_is_marked  [cpu]" in done.stdout
    assert "UNEXPECTED sample/it_is_broken  [cpu]" in done.stdout
    assert "but it isn't in the known way" in done.stdout
    assert len(marks(checkout)) == 101  # the counterexample, and then as ever

    updated = command(checkout, "expectations", "update", "--expectations", str(path), "--device", "cpu")
    assert (updated.returncode, updated.stderr) == (0, "")
    here = module._here("cpu")
    text = path.read_text()
    kept = [line for line in text.split("\n") if not line.startswith(("counterexample", "shows", "gone"))]
    assert kept == [line for line in STALE.split("\n") if not line.startswith(("counterexample", "shows", "gone"))]
    one, marked, broken, *others = tomllib.loads(text)["expectation"]
    assert one["gone"] == [here]
    assert (marked["gone"], marked["counterexample"]) == (["1.0 cpu", here], '{"n": 5}')
    assert broken["shows"] == "this is wrong"
    assert "three" in broken["counterexample"]
    assert "gone" not in broken
    assert others == tomllib.loads(STALE)["expectation"][3:]

    done = checkout.run(*claims, options=run)
    assert done.returncode == 0, done.stdout
    assert "2 of 3 claims hold, 1 failing as expected" in done.stdout
    again = command(checkout, "expectations", "update", "--expectations", str(path), "--device", "cpu")
    assert (again.returncode, again.stdout) == (0, f"{path} says what is so\n")
    assert path.read_text() == text


def test_what_fails_here_gets_an_entry_where_that_is_asked_for(checkout):
    path = checkout.folder / "added.toml"
    (checkout.folder / "expectations.toml").unlink(missing_ok=True)
    claims = (HOLDS, BROKEN, CRASHES, OBSERVED)
    run = ("--device", "cpu", "--expectations", str(path))
    path.write_text("# without an end of the line")
    assert checkout.run(*claims, options=("--collect-only",)).returncode == 0
    updated = command(checkout, "expectations", "update", "--expectations", str(path), "--device", "cpu", "--add")
    assert (updated.returncode, updated.stderr) == (0, "")
    assert "sample/it_crashes: undecided on" in updated.stdout
    broken, crashes = tomllib.loads(path.read_text())["expectation"]
    assert path.read_text().startswith("# without an end of the line\n\n[[expectation]]\n")
    assert (broken["claim"], broken["device"], broken["shows"]) == ("sample/it_is_broken", "cpu", "this is wrong")
    assert broken["torch"] == f"=={module._release()}"
    assert (crashes["verdict"], crashes["reason"]) == ("undecided", "the process died: exit code 11")
    done = checkout.run(*claims, options=run)
    assert done.returncode == 0, done.stdout
    assert "1 of 4 claims hold, 1 broken, 2 failing as expected" in done.stdout


KNOWN = "accumulation/backward_adds_to_the_grad_of_a_leaf"
GOOD = (
    entry(torch=">=2.0,<2.15", device="cuda", link="x", counterexample=COUNTEREXAMPLE, shows="y")
    + 'gone = ["2.1 cuda"]\n'
).replace("sample/it_is_broken", KNOWN)


@pytest.mark.parametrize(
    ("text", "telling"),
    [
        ("[[expectation]", "isn't TOML"),
        ("\ufeff", "isn't TOML"),
        ("x = " + "[" * 100_000, "isn't TOML"),
        ("other = 1", "unknown entry 'other'"),
        ("expectation = 1", "expectation is no array"),
        (GOOD + "more = 1", "unknown entry 'more'"),
        (GOOD.replace("reason", "reasons"), "has no 'reason'"),
        (GOOD.replace("'broken'", "'holds'"), "none of broken, undecided"),
        (GOOD.replace("'broken'", "[]"), "no string"),
        (GOOD.replace("nobody knows", " "), "not of the form"),
        (GOOD.replace("cuda'", "cu da'"), "not of the form"),
        (GOOD.replace("<2.15", "new"), "names no releases"),
        (GOOD.replace("Values", "values"), f"the counterexample of {KNOWN} can't be read: there is no kind"),
        (GOOD.replace("adds", "subtracts"), "there is no claim accumulation/backward_subtracts"),
        (GOOD.replace("accumulation/", "../accumulation/"), "not of the form"),
    ],
)
def test_a_file_that_is_broken_is_refused_in_one_sentence(tmp_path, text, telling):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ExpectationError, match=r".") as caught:
        read(path)
    assert telling in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_text_or_cannot_be_read_is_refused(tmp_path):
    for path, telling in ((tmp_path, "can't be read"), (tmp_path / "none", "can't be read")):
        with pytest.raises(ExpectationError, match=telling):
            read(path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\0")
    with pytest.raises(ExpectationError, match="isn't text"):
        read(tmp_path / "binary")


def test_options_that_are_wrong_are_told_in_one_sentence(checkout):
    path = checkout.folder / "wrong.toml"
    path.write_text("expectation = 1")
    done = checkout.run(HOLDS, options=("--expectations", "wrong.toml"))
    assert (done.returncode, "expectation is no array" in done.stderr) == (4, True)
    assert "Traceback" not in done.stdout + done.stderr
    for arguments, telling in (
        (["--expectations", "wrong.toml"], "expectation is no array"),
        (["--expectations", "nothing.toml"], "can't be read"),
        (["--device", "quantum"], "names no device"),
    ):
        done = command(checkout, "expectations", "update", *arguments)
        assert (done.returncode, done.stderr.count("\n"), telling in done.stderr) == (2, 1, True), done.stderr


def test_a_command_for_programs_tells_in_one_sentence_what_it_cannot_read(checkout):
    done = command(checkout, "replay", input="")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(
    ("verdict", "record", "shown"),
    [
        ("broken", {"verdict": "broken", "reason": "one", "expected": "1", "came": "2"}, True),
        ("broken", {"verdict": "broken", "reason": "other", "expected": "1", "came": "2"}, False),
        ("broken", {"verdict": "broken", "reason": "stopped", "expected": "no error", "came": "one: x"}, True),
        ("broken", {"verdict": "broken", "reason": "one", "expected": "no error", "came": "other: x"}, False),
        ("broken", {"verdict": "vacuous", "reason": "one"}, False),
        ("undecided", {"verdict": "undecided", "reason": "the process died: one"}, True),
        ("undecided", {"verdict": "undecided", "reason": "it gave different results"}, False),
        ("undecided", {"verdict": "broken", "reason": "one", "expected": "1", "came": "2"}, False),
        ("undecided", {"verdict": "holds"}, False),
    ],
)
def test_what_shows_that_it_is_as_expected(verdict, record, shown):
    made = module.Expectation("sample/x", "", verdict, "x", counterexample="{}", shows="one")
    assert made.shown_by(record) is shown
    if verdict == "broken":
        assert replace(made, shows="").shown_by(record) is (record["verdict"] == "broken")


def test_a_file_that_was_altered_is_read_or_refused(tmp_path):
    random_ = random.Random(0)
    path = tmp_path / "mine.toml"
    read_, refused = 0, []
    for _ in range(1000):
        content = bytearray(b"# A comment.\n" + GOOD.encode() * 2)
        for _ in range(random_.choice([1, 2, 5])):
            at = random_.randrange(len(content))
            content[at : at + random_.choice([0, 1, 30])] = random_.choice(
                [b"", b"'", b'"', b"[", b"\xff", b"\0", b"7"]
            )
        path.write_bytes(content)
        try:
            read(path)
            read_ += 1
        except ExpectationError as error:
            refused.append(str(error))
    assert 0 < read_ < 1000
    assert not any("\n" in sentence for sentence in refused)


def test_a_layout_that_cannot_be_kept_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "mine.toml"
    text = f"expectation = [{{claim = '{KNOWN}', torch = '', verdict = 'broken', reason = 'x', gone = []}}]\n"
    path.write_text(text)
    with pytest.raises(ExpectationError, match="each entry must begin with a line"):
        module.update(path, {}, ["cpu"])
    assert path.read_text() == text


UNUSUAL = """# Above.
  [[expectation]] # the first
counterexample = '''
{"n":
  1}'''   # in three lines
claim = 'sample/x'
gone = [  # where
  "1 cpu",
]
reason = '''
# it ends with this'''
# of the next
"""


def test_only_our_lines_of_an_entry_are_rewritten():
    old = tomllib.loads(UNUSUAL)["expectation"][0]
    ours = {"counterexample": '{"n": "\'"}', "shows": 'a\n"', "gone": ("1 cpu", "2")}
    text = module._rewritten(UNUSUAL, module.Expectation("sample/x", "", "broken", "", **ours), module.FILE)
    stored = {"counterexample": '{"n": "\\u0027"}', "shows": 'a\n"', "gone": ["1 cpu", "2"]}
    assert tomllib.loads(text)["expectation"] == [old | stored]
    assert text.split("\n") == [
        "# Above.",
        "  [[expectation]] # the first",
        """counterexample = '{"n": "\\u0027"}'""",
        "claim = 'sample/x'",
        'gone = ["1 cpu", "2"]',
        r'shows = "a\n\""',
        "reason = '''",
        "# it ends with this'''",
        "# of the next",
        "",
    ]


def test_a_key_that_cannot_be_found_is_left_alone():
    changed = module.Expectation("sample/x", "", "broken", "", gone=("2",))
    with pytest.raises(ExpectationError, match="gone of sample/x is written in an unusual way"):
        module._rewritten("[[expectation]]\nclaim = 'sample/x'\n\"g\\u006fne\" = ['1']\n", changed, module.FILE)


@pytest.mark.parametrize(
    ("torch", "device", "applies"),
    [
        ("", "", True),
        (">=1.13", "cuda", True),
        ("", "cuda:1", True),
        ("", "cuda:0", False),
        ("", "cpu", False),
        (">2.6.0", "", False),
        ("==2.6.0", "", True),
        ("!=2.6.0", "", False),
    ],
)
def test_where_an_expectation_applies(monkeypatch, torch, device, applies):
    monkeypatch.setattr("torch.__version__", "2.6.0a0+git123")
    made = module.Expectation("a/former", torch, "broken", "x", device)
    claim = SimpleNamespace(id="a/fresh", formerly=("a/former",))
    assert made.applies(claim, "cuda:1") is applies
    assert not replace(made, gone=("2.6.0 cuda",)).applies(claim, "cuda:1")
    assert replace(made, gone=("2.6.0 cpu", "2.6.1 cuda")).applies(claim, "cuda:1") is applies
    assert not made.applies(SimpleNamespace(id="a/other", formerly=()), "cuda:1")


def test_the_known_deviations_can_be_read():
    assert all(e.link for e in read(module.FILE))
