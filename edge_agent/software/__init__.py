"""The software of a device: what is installed, and what of it the agent reports."""
