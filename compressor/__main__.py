"""``python -m compressor``: the command line, as torchrun starts it on several hosts."""

from compressor.cli import main

main()
