"""`python -m secateur.cli`, the same as `secateur`."""

from secateur.cli import main

main()
