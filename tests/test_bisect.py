"""`python -m specs bisect` finds the release on which a claim broke, asks each release once, and says what it can't."""

import json
import os
import shutil
import subprocess
import sys
import textwrap

import pytest

from specs import __main__ as commands
from specs.verdicts import bisect
from specs.verdicts.pages import RESULTS

from .test_cli import ROOT, Checkout
from .test_compare import ledger, record

CLAIM = "accumulation/backward_adds_to_the_grad_of_a_leaf"

# Stands for the Python of an environment. Its `says` is what the specification finds there, and how the script ends.
PYTHON = """#!{python}
import json, pathlib, sys
here = pathlib.Path(__file__).parent
says = json.loads((here / "says.json").read_text())
given = "script" if sys.argv[1] == "-" else "quick" if "--profile=quick" in sys.argv else "gate"
with open(here.parent / "asked", "a") as asked:
    asked.write(here.name + " " + given + "\\n")
if given == "script":
    sys.exit(says.get("script"))
if says.get("error"):
    sys.exit(says["error"])
path = next(word.removeprefix("--ledger=") for word in sys.argv if word.startswith("--ledger="))
verdict = says[given] if given in says else says["verdict"]
ledger = says["ledgers"][verdict]
ledger["environment"]["torch"] = says.get("torch", here.name)
pathlib.Path(path + (".incomplete" if verdict == "none" else "")).write_text(json.dumps(ledger))
if verdict == "none":
    import os, signal
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    os.kill(os.getpid(), says.get("signal", signal.SIGSEGV))
"""
LEDGERS = {
    verdict: ledger(record(CLAIM, verdict)) for verdict in ("holds", "broken", "vacuous", "undecided", "not applicable")
} | {"none": ledger()}
for made in LEDGERS.values():
    for one in made["verdicts"]:
        one.setdefault("reason", "it needs that")
SAME = {"verdict": "broken", "script": "AssertionError: the very same"}
OTHER = {"verdict": "holds", "script": "AttributeError: torch has no such thing"}
HOLDS = {"verdict": "holds"}
CRASHES = {"verdict": "none"}


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the command over fake environments; gives exit code, output, errors and what the environments were asked."""

    def run_(environments, *options, claim=CLAIM):
        for release, says in environments.items():
            folder = tmp_path / release
            folder.mkdir()
            (folder / "says.json").write_text(json.dumps(says | {"ledgers": LEDGERS}))
            (folder / "python").write_text(PYTHON.format(python=sys.executable))
            (folder / "python").chmod(0o755 if says else 0o644)
        (tmp_path / "asked").write_text("")
        (tmp_path / "notes").mkdir()  # no environment
        monkeypatch.chdir(tmp_path)
        pattern = ["--python-for", "{}/python"]
        monkeypatch.setattr(sys, "argv", ["specs", "bisect", claim, *pattern, *options])
        try:
            code = commands.main()
        except SystemExit as stopped:  # of argparse
            code = stopped.code
        told = capsys.readouterr()
        return code, told.out, told.err, (tmp_path / "asked").read_text().splitlines()

    return run_


ENDS = ("--good", "2.0.0", "--bad", "2.8.0")


@pytest.mark.parametrize("first", range(1, 9))
def test_the_first_bad_release_is_found_wherever_it_is(run, first):
    environments = {f"2.{minor}.0": SAME if minor >= first else HOLDS for minor in range(9)}
    code, out, err, asked = run(environments, *ENDS)
    assert (code, err) == (0, "")
    assert f"{CLAIM} broke on torch 2.{first}.0; the last good release is 2.{first - 1}.0" in out
    for shown in (f"{CLAIM} is so.", "expected  1", "came      2", "assert False"):
        assert shown in out
    # Both ends, and three of the seven between; no release twice, and the specification only where the script passes.
    assert asked[:4] == ["2.8.0 quick", "2.8.0 script", "2.0.0 script", "2.0.0 quick"]
    assert len(set(asked)) == len(asked)
    assert len({line.split()[0] for line in asked}) == 5
    assert all(f"2.{minor}.0 quick" not in asked for minor in range(first, 8))
    assert out.count("by the same counterexample") == sum(line.endswith("script") for line in asked[3:]) - sum(
        line.endswith("quick") for line in asked[4:]
    )


def test_a_counterexample_that_ends_otherwise_decides_nothing(run):
    worse = SAME | {"script": "AssertionError: something else"}
    code, out, _, asked = run({"2.0.0": HOLDS, "2.1.0": OTHER, "2.2.0": worse, "2.8.0": SAME}, *ENDS)
    assert code == 0
    assert "broke on torch 2.2.0; the last good release is 2.1.0" in out
    assert asked[4:] == ["2.2.0 script", "2.2.0 quick", "2.1.0 script", "2.1.0 quick"]


def test_what_few_examples_do_not_show_more_may(run):
    environments = {"2.0.0": HOLDS, "2.4.0": HOLDS, "2.8.0": SAME | {"quick": "holds"}}
    code, _, _, asked = run(environments, *ENDS)
    assert code == 0
    assert [line for line in asked if "script" not in line] == ["2.8.0 quick", "2.8.0 gate", "2.0.0 gate", "2.4.0 gate"]


def test_a_crash_counts_as_broken_and_a_kill_from_outside_does_not(run):
    killed = CRASHES | {"signal": 9}
    code, out, _, _ = run({"2.0.0": HOLDS, "2.1.0": HOLDS, "2.2.0": killed, "2.8.0": CRASHES}, *ENDS)
    assert code == 0
    assert "2.8.0  undecided: the process died of SIGSEGV" in out
    assert "broke on torch 2.8.0; the last good release is 2.1.0\n  it may have been 2.2.0 already" in out


def test_environments_that_are_broken_are_passed_over(run):
    environments = {
        "2.0.0": HOLDS,
        "2.1.0": {"verdict": "not applicable"},
        "2.2.0": HOLDS,
        "2.3.0": {"error": "no torch here"},
        "2.3.1": {},  # can't be started
        "2.4.0": {"verdict": "broken", "torch": "2.9.1"},
        "2.5.0": SAME,
        "2.8.0": SAME,
    }
    code, out, _, _ = run(environments, *ENDS)
    assert code == 0
    assert "broke on torch 2.5.0; the last good release is 2.2.0" in out
    assert "it may have been 2.3.0 already, which could not be tried: no torch here" in out
    assert "2.3.1 already, which could not be tried" in out
    assert "python can't be run: Permission denied" in out
    assert "has torch 2.9.1" in out
    assert "it may have been 2.1.0" not in out


def test_explicit_releases_are_the_only_ones_tried(run):
    environments = {f"2.{minor}.0": SAME if minor >= 3 else HOLDS for minor in range(9)}
    code, out, _, asked = run(environments, *ENDS, "--releases", "2.6.0,2.2.0")
    assert code == 0
    assert "broke on torch 2.6.0; the last good release is 2.2.0" in out
    assert {line.split()[0] for line in asked} == {"2.0.0", "2.2.0", "2.6.0", "2.8.0"}


BOTH = {"2.0.0": HOLDS, "2.8.0": SAME}


@pytest.mark.parametrize(
    ("environments", "options", "code", "telling"),
    [
        ({"2.0.0": HOLDS, "2.8.0": HOLDS}, ENDS, 1, f"{CLAIM} holds on --bad 2.8.0"),
        ({"2.0.0": SAME, "2.8.0": SAME}, ENDS, 1, f"{CLAIM} is broken on --good 2.0.0 already"),
        ({"2.0.0": {"verdict": "not applicable"}, "2.8.0": SAME}, ENDS, 2, "can't be tried on 2.0.0: it needs that"),
        ({"2.0.0": HOLDS, "2.8.0": {"error": "no torch"}}, ENDS, 2, "can't be tried on 2.8.0: no torch"),
        ({"2.0.0": HOLDS}, ENDS, 2, "no environment of 2.8.0; there are those of 2.0.0"),
        ({}, ENDS, 2, "there is no environment of any release in"),
        (BOTH, ("--good", "2.8.0", "--bad", "2.0.0"), 2, "has to be an older release"),
        (BOTH, ("--good", "two", "--bad", "2.8.0"), 2, "'two' is no release"),
        (BOTH, (*ENDS, "--releases", "2.4.0"), 2, "no environment of 2.4.0"),
        (BOTH, (*ENDS, "--releases", "2.9.0"), 2, "doesn't lie between 2.0.0 and 2.8.0"),
        (BOTH, (*ENDS, "--releases", "2.4.0,x"), 2, "'x' is no release"),
        (BOTH, (*ENDS, "--python-for", "python"), 2, "has no {} in it"),
    ],
)
def test_what_cannot_be_searched_is_told_in_one_sentence(run, environments, options, code, telling):
    ended, _, err, _ = run(environments, *options)
    assert (ended, "Traceback" in err) == (code, False)
    assert telling in err
    assert len([line for line in err.splitlines() if not line.startswith(("usage:", " "))]) == 1


def test_a_claim_that_is_not_made_or_not_there_runs_nothing(run):
    ends = ("--good", "2.13.0", "--bad", "2.15.0")
    claim = "nondifferentiable/clamp_passes_the_whole_gradient_at_its_bound"
    code, _, err, asked = run({"2.13.0": HOLDS, "2.15.0": SAME}, *ends, claim=claim)
    assert (code, asked) == (1, [])
    assert "isn't made on 2.15.0: it is made before 2.14" in err


def test_an_unknown_claim_is_told(run):
    code, _, err, asked = run({}, *ENDS, claim=CLAIM + "s")
    assert (code, asked) == (2, [])
    assert f"there is no claim {CLAIM}s; is it {CLAIM}" in err


def test_a_search_that_is_stopped_says_so(run, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(bisect, "_run", stop)
    code, _, err, _ = run(BOTH, *ENDS)
    assert (code, err) == (130, "stopped before the release was found\n")


def test_without_a_checkout_nothing_is_searched(run, monkeypatch, tmp_path):
    monkeypatch.setattr(bisect, "ROOT", tmp_path)
    code, _, err, asked = run(BOTH, *ENDS)
    assert (code, asked) == (2, [])
    assert "needs a checkout" in err


def test_the_environments_of_tox_are_found(tmp_path, monkeypatch):
    shutil.copy(ROOT / "tox.ini", tmp_path)
    monkeypatch.setattr(bisect, "ROOT", tmp_path)
    with pytest.raises(bisect.BisectError, match="make them with tox"):
        bisect.pythons(None)
    inside = "Scripts/python.exe" if os.name == "nt" else "bin/python"
    for name in ("torch2.14", "torch2.6", "specs"):
        (tmp_path / ".tox" / name / inside).parent.mkdir(parents=True)
        (tmp_path / ".tox" / name / inside).touch()
    assert [str(release) for release in bisect.pythons(None)] == ["2.6.0", "2.14.1"]


RELEASES = os.environ.get("TORCH_RELEASES", "")
CLAMP = "nondifferentiable/clamp_passes_the_whole_gradient_at_its_bound"


@pytest.mark.skipif(not RELEASES, reason="TORCH_RELEASES doesn't name the Pythons of releases, as ~/envs/{}/bin/python")
def test_a_change_of_pytorch_is_caught_and_found(tmp_path):
    """The example of the README: the suite as it was before it knew of the change."""

    def python(release):
        return os.path.expanduser(RELEASES.replace("{}", release))

    def run_(release, *arguments, given=None):
        command = [python(release), *arguments]
        return subprocess.run(command, cwd=tmp_path, input=given, capture_output=True, text=True)

    Checkout(tmp_path)
    chapter = (ROOT / "specs" / "nondifferentiable.py").read_text()
    (tmp_path / "specs" / "nondifferentiable.py").write_text(chapter.replace(', until="2.14"', "", 1))
    shutil.copy(ROOT / "specs" / "__main__.py", tmp_path / "specs")
    with (tmp_path / "specs" / "__init__.py").open("a") as file:
        file.write('\nCHAPTERS = ("nondifferentiable",)\n')

    # In one word: pytest looks for its settings beside files that seem to be arguments.
    against = ("--device", "cpu", f"--against={RESULTS / 'torch-2.13.0-cpu.json'}")
    gate = run_("2.14.1", "-m", "pytest", *against, "specs/nondifferentiable.py")
    assert gate.returncode == 1, gate.stdout
    assert f"NEWLY BROKEN  {CLAMP}" in gate.stdout

    ends = ("--good", "2.11.0", "--bad", "2.15.0", "--python-for", RELEASES)
    found = run_("2.13.0", "-m", "specs", "bisect", CLAMP, *ends)
    assert found.returncode == 0, found.stderr
    assert f"{CLAMP} broke on torch 2.14.0; the last good release is 2.13.0" in found.stdout
    script = textwrap.dedent(found.stdout.partition("a script that shows it:\n")[2])
    assert [run_(release, "-", given=script).returncode for release in ("2.13.0", "2.14.0")] == [0, 1]
