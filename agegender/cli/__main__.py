"""Write JSON Schemas of the configs: `agegender schema`; `--help` lists the settings."""

from agegender.cli.commands import start

if __name__ == "__main__":
    start("schema")
