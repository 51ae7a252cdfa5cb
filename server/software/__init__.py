"""The software of devices: which lists they report, the lists themselves, and who runs what."""
