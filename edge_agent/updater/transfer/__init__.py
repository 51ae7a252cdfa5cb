"""How the bytes of a bundle come to the device, beside HTTP: chunks over MQTT, patches, and the rate limit."""
