"""The device's messages to and from the server: rows, spool, uplink, commands."""
