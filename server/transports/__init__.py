"""How the server talks to the broker: ``mqtt`` (paho) and ``memory`` (a broker in this process)."""
