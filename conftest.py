"""Options and hooks of the suite; what they do is in specs/verdicts/plugin.py."""

pytest_plugins = ["specs.verdicts.plugin"]
