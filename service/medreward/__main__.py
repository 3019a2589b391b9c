"""`python -m medreward` is the `medreward` command."""

from medreward.cli import main

main()
