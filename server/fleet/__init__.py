"""Devices: enrolment, credentials, liveness, commands, measurements and how they leave."""
