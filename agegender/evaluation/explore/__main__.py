"""Describe a data set on one page: `agegender explore`; `--help` lists the settings."""

from agegender.cli.commands import start

if __name__ == "__main__":
    start("explore")
