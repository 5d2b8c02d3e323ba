"""`python -m agegender train ...` is `agegender train ...`."""

from agegender.commands import main

main()
