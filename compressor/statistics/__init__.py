"""Statistics of the gates: paired tests, confidence bounds, power, bootstrap. Pure."""
