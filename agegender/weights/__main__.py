"""Bundle a run's weights to pass them on: `agegender bundle`; `--help` lists the settings."""

from agegender.cli.commands import start

if __name__ == "__main__":
    start("bundle")
