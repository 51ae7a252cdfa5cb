"""``python -m compressor.cli``: the command line."""

from compressor.cli import main

main()
