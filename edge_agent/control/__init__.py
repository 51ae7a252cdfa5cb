"""The control process: the main loop, its parts, and the supervision of the inference process."""
