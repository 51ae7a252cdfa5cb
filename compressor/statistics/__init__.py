"""The statistics of the gates: paired tests, bounds, power, bootstrap. Pure."""
