"""Environments in which the suite is installed, for the tests that need one."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]


class Environment:
    """A new virtual environment, which sees PyTorch and the other packages of the one that runs the tests."""

    def __init__(self, folder: Path):
        self.folder, self.work = folder / "environment", folder / "work"
        self.work.mkdir()
        venv.create(self.folder)
        scheme = sysconfig.get_preferred_scheme("prefix")
        self.packages = Path(sysconfig.get_path("purelib", scheme, {"base": self.folder, "platbase": self.folder}))
        seen = [path for path in map(Path, sys.path) if path.name in ("site-packages", "dist-packages")]
        (self.packages / "seen.pth").write_text("".join(f"{path}\n" for path in seen))

    def run(self, *command: str, stdin: str | None = None, **variables: str) -> subprocess.CompletedProcess:
        """Run the command in the folder `work`, with the environment's programs first."""
        path = os.pathsep.join([str(self.folder / "bin"), os.environ["PATH"]])
        environment = os.environ | {"PATH": path} | variables
        for name in ("PYTEST_XDIST_WORKER", "PYTHONPATH"):
            environment.pop(name, None)
        return subprocess.run(command, cwd=self.work, env=environment, input=stdin, capture_output=True, text=True)

    def install(self, source: Path) -> None:
        """Install the suite from a folder as pip does it: by a wheel, which is built by itself."""
        done = self.run("python", "-m", "pip", "install", "-q", "--no-deps", str(source))
        assert done.returncode == 0, done.stderr
