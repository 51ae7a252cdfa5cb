"""Devices: enrolment, credentials, liveness, commands, measurements, revocation and removal."""
