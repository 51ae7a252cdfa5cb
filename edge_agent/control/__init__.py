"""The control process: the loop, its parts and the supervision of the inference process."""
