"""What the device keeps for the server and sends: rows, spool, uplink, commands."""
