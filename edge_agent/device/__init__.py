"""The device that the agent runs on: identity, disk, clock, hardware, limits."""
