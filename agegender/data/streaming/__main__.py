"""Pack faces into shards: `agegender pack`; `--help` lists the settings."""

from agegender.cli.commands import start

if __name__ == "__main__":
    start("pack")
