"""An IP camera as it is seen over HTTP. It can go away, and come back on the same port."""

from __future__ import annotations

import http.server
import socketserver
import threading
from collections.abc import Callable, Iterator

Pictures = Iterator[bytes]
"""JPEGs without an end, one each time that it is due."""


class MjpegServer:
    def __init__(self, pictures: Callable[[], Pictures], port: int = 0) -> None:
        """`pictures` is called for each client, on a thread of its own. Port 0: a free one, kept from then on."""
        self._pictures = pictures
        self._on = threading.Event()
        self._server: socketserver.ThreadingTCPServer | None = None
        self.port = port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/video"

    def start(self) -> None:
        camera = self
        camera._on.set()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # the name http.server asks for
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                try:
                    for data in camera._pictures():
                        if not camera._on.is_set():
                            break
                        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                        self.wfile.write(head.encode() + data + b"\r\n")
                except OSError:
                    pass  # the client went away

            def log_message(self, *args: object) -> None:
                pass

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._on.clear()
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
