"""The private mosquitto and the server's connections to a broker."""
