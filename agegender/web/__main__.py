"""Serve the page and the HTTP API: `agegender serve`; `--help` lists the settings."""

from agegender.cli.commands import start

if __name__ == "__main__":
    start("serve")
