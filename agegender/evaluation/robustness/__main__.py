"""Measure a run under corrupted pictures: `agegender robustness`; `--help` lists the settings."""

from agegender.cli.commands import start

if __name__ == "__main__":
    start("robustness")
