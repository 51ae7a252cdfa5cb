"""Where a finished run is logged beside the disk: MLflow, where the command line asks for it.

Decides what is logged, under which names, and what is said when it can't be. A run never depends on it: everything
is on the disk before the first byte is sent, and no recipe, digest or bundle knows of it.
"""
