"""`python -m agegender train ...` is `agegender train ...`."""

from agegender.cli.commands import main

main()
