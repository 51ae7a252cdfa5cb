"""The local interface of the device, served by the inference child: HTTP on loopback or on a unix socket."""
