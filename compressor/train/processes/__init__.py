"""Training shared by several processes, on one host or several."""
