"""A network camera on loopback: MJPEG over HTTP, which is unplugged or stalls when a test wants it."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field

_HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace;boundary=frame\r\n\r\n"


@dataclass
class CameraServer:
    """Sends ``frames`` pictures to each connection; then the connection ends, or with ``stalls`` stays silent."""

    picture: bytes
    frames: int = 2
    stalls: bool = False
    connections: int = 0
    held: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Listen."""
        self._socket = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def address(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}/video"

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.connections += 1
                self.held.append(connection)
                with contextlib.suppress(OSError):
                    self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(_HEAD)
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(self.picture)}\r\n\r\n"
        for _ in range(self.frames):
            connection.sendall(head.encode() + self.picture + b"\r\n")
        if self.stalls:
            connection.sendall(b"--frame\r\n")
        else:
            connection.close()

    def close(self) -> None:
        """Unplug it."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for connection in self.held:
            connection.close()
