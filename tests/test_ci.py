"""The examples of continuous integration do what they say: their steps are run here, as a runner would run them."""

import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

from specs.verdicts import ci

from .installed import ROOT, Environment
from .test_cli import BROKEN, HEAD, HOLDS
from .test_compare import ledger, record

EVIL = '''
@claim(cites=CITED)
def spec_it_is_evil(world):
    """100% of <b>tensors</b> | are ::error:: so."""
    same(1, 2, why="one\\n::set-output name=x::y\\n##[error]z")
'''


def test_a_badge_is_red_only_if_a_promised_claim_fails():
    badges = {
        "brightgreen": ledger(record(), record("a/b", "broken", standing="observed"), record("a/c", "not applicable")),
        "red": ledger(record(), record("a/b", "undecided", reason="it crashed")),
        "lightgrey": ledger(record(), complete=False),
    }
    for colour, made in badges.items():
        badge = json.loads(ci.badge(made))
        assert (badge["schemaVersion"], badge["color"]) == (1, colour)
        assert badge["label"] == "autograd on torch 2.6.0"
        assert "cpu: 1 of " in badge["message"]
    assert json.loads(ci.badge(ledger(devices={"cuda": {"not_run": "none"}})))["color"] == "lightgrey"


def test_annotations_are_for_what_fails_the_run():
    failing = [record(f"a/{n:02}", "broken") for n in range(12)]
    now = ledger(*failing, record("a/observed", "broken", standing="observed"), record())
    lines = ci.annotations(now).splitlines()
    assert len(lines) == 10  # GitHub shows no more
    assert lines[0] == "::error title=broken%3A a/00 [cpu]::a/00 is so.%0Ait is so: expected 1, came 2"
    assert "3 more" in lines[-1]
    before = ledger(*(record(f"a/{n:02}", "holds" if n == 5 else "broken") for n in range(12)))
    (line,) = ci.annotations(now, before).splitlines()
    assert "a/05" in line


def test_text_of_a_ledger_stays_text():
    evil = "x\r\n::set-output name=a::b\n##[error]c %0A <img src=x> [l](javascript:1) \x1b[2J\u2028::error::"
    broken = record(verdict="broken", sentence=evil, reason=evil, expected=evil, came=evil, script="```\n<b>\n")
    made = ledger(broken, torch=f"2.6 {evil}")
    (line,) = ci.annotations(made).splitlines()
    assert line.startswith("::error title=broken%3A leaves/one [cpu]::")
    assert line.isprintable()
    assert "%250A" in line
    text = ci.summary(made)
    outside = re.sub(r"````python.*?````", "", text, flags=re.DOTALL)
    assert "<img" not in outside
    assert "[l](" not in outside
    assert "<b>" not in outside
    assert all(not line.startswith(("::", "##[")) for line in outside.splitlines())
    assert json.loads(ci.badge(made))["label"].endswith(evil)
    assert ci.badge(made).isascii()
    assert ci.badge(made).count("\n") == 1


class Runner:
    """A runner of continuous integration with a checkout of the suite that has a chapter of our own."""

    def __init__(self, folder: Path):
        self.suite, self.temporary = folder / "suite", folder / "temporary"
        shutil.copytree(ROOT / "specs", self.suite / "specs", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "action.yml", "expectations.toml"):
            shutil.copy(ROOT / name, self.suite / name)
        with (self.suite / "specs" / "__init__.py").open("a") as file:
            file.write('\nPARTS = {"A sample": ("sample",)}\nCHAPTERS = ("sample",)\n')
        (self.suite / "specs" / "sample.py").write_text("\n".join([HEAD, HOLDS, BROKEN, EVIL]))
        self.environment = Environment(folder)
        self.temporary.mkdir()
        self.results = self.temporary / "autograd-conformance"

    def action(self, steps: list[str], **inputs: str) -> tuple[dict[str, tuple[int, str]], str]:
        """Exit code and output of each step with a name in `steps`, and the summary that they wrote."""
        action = yaml.safe_load((self.suite / "action.yml").read_text())
        given = {name: inputs.pop(name, facts["default"]) for name, facts in action["inputs"].items()}
        assert not inputs
        summary = self.temporary / "summary.md"
        summary.write_text("")
        variables = {"GITHUB_ACTION_PATH": self.suite, "RUNNER_TEMP": self.temporary, "GITHUB_STEP_SUMMARY": summary}
        done = {}
        for step in action["runs"]["steps"]:
            if "run" in step and step["name"] in steps:
                assert "${{" not in step["run"]  # an input would be run
                own = {
                    name: re.sub(r"\$\{\{ inputs\.(\S+) \}\}", lambda found: given[found[1]], text)
                    for name, text in step.get("env", {}).items()
                }
                ran = self.environment.run(
                    *("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]),
                    **{name: str(value) for name, value in variables.items()},
                    **own,
                )
                done[step["name"]] = ran.returncode, ran.stdout + ran.stderr
        return done, summary.read_text()


INSTALL, RUN, TELL = "Install the suite beside the PyTorch of this job", "Run the specification", "Tell what was found"


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    """A runner that did the action's first step."""
    runner = Runner(tmp_path_factory.mktemp("runner"))
    done, _ = runner.action([INSTALL])
    assert done[INSTALL][0] == 0, done
    return runner


def commands(output):
    """The lines that GitHub's runner would take for commands to it."""
    found, token = [], None
    for line in output.splitlines():
        if token:
            token = None if line.strip() == f"::{token}::" else token
        elif line.strip().startswith("::stop-commands::"):
            token = line.strip().removeprefix("::stop-commands::")
        elif line.lstrip().startswith("::") or "##[" in line:
            found.append(line)
    return found


def test_the_action_runs_tells_and_keeps(runner):
    done, summary = runner.action([RUN, TELL], device="cpu", profile="quick")
    assert done[RUN][0] == 1
    assert "1 of 3 claims hold, 2 broken" in done[RUN][1]
    assert commands(done[RUN][1]) == []
    assert done[TELL][0] == 0, done[TELL]
    shown = commands(done[TELL][1])
    assert [line.partition("::sample")[0].partition(" [")[0] for line in shown] == [
        "::error title=broken%3A sample/it_is_broken",
        "::error title=broken%3A sample/it_is_evil",
    ]
    assert "1 of 3 claims hold, 2 broken" in summary
    assert "it\\_is\\_broken" in summary
    assert "<b>" not in re.sub(r"```python.*?```", "", summary, flags=re.DOTALL)
    assert json.loads((runner.results / "ledger.json").read_text())["profile"] == "quick"
    assert json.loads((runner.results / "badge.json").read_text())["color"] == "red"
    cases = ElementTree.parse(runner.results / "junit.xml").iter("testcase")
    claims = {case.find("properties/property[@name='claim']").get("value"): case.find("failure") for case in cases}
    assert {name: failure is not None for name, failure in claims.items()} == {
        "sample/it_holds": False,
        "sample/it_is_broken": True,
        "sample/it_is_evil": True,
    }

    # What failed before doesn't fail the job again; the evil claim held there.
    before = json.loads((runner.results / "ledger.json").read_text())
    for found in before["verdicts"]:
        if found["claim"] == "sample/it_is_evil":
            found["verdict"] = "holds"
    (runner.environment.work / "be fore;.json").write_text(json.dumps(before))
    done, summary = runner.action([RUN, TELL], device="cpu", profile="quick", against="be fore;.json")
    assert [code for code, _ in done.values()] == [1, 0], done
    assert commands(done[RUN][1]) == []
    (shown,) = commands(done[TELL][1])
    assert "sample/it_is_evil" in shown
    assert "newly broken" in summary
    assert "it\\_is\\_broken" not in summary


def test_the_action_takes_no_input_for_a_command(runner):
    touched = runner.environment.work / "touched"
    done, summary = runner.action([RUN, TELL], device="cpu $(touch touched)", against='"; touch touched; "')
    assert done[RUN][0] == 4
    assert done[TELL] == (0, "")
    assert summary == ""
    assert not touched.exists()


def test_the_job_for_gitlab_runs(runner):
    job = yaml.safe_load((ROOT / "docs" / "ci" / "gitlab-ci.yml").read_text())["autograd-conformance"]
    variables = job["variables"] | {"CONFORMANCE_SUITE": str(runner.suite)}
    variables["CONFORMANCE_OPTIONS"] += " --profile quick"
    script = "\n".join(job["script"])
    assert runner.environment.run("bash", "-eo", "pipefail", "-c", script, **variables).returncode == 1
    done = runner.environment.run("bash", "-eo", "pipefail", "-c", "\n".join(job["after_script"]), **variables)
    assert done.returncode == 0, done.stderr
    kept = {path.name for path in runner.environment.work.iterdir()}
    assert kept >= {*job["artifacts"]["paths"], job["artifacts"]["reports"]["junit"]} - {"ledger.json.incomplete"}
