"""``python -m server.cli``: the command line."""

from server.cli import main

main()
