"""Export a network to ONNX: `agegender export`; `--help` lists the settings."""

from agegender.cli.commands import start

if __name__ == "__main__":
    start("export")
