"""How a device proves who it is: its password, and its certificate."""
