"""Report on one or two runs: `agegender report`; `--help` lists the settings."""

from agegender.cli.commands import start

if __name__ == "__main__":
    start("report")
