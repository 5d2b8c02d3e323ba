"""Compare two runs face by face: `agegender compare`; `--help` lists the settings."""

from agegender.cli.commands import start

if __name__ == "__main__":
    start("compare")
