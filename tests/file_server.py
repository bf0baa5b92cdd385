"""A real HTTP server that serves one file, whole, cut or not at all."""

import contextlib
import http.server
import threading
import time

import numpy as np

DATA = np.random.default_rng(0).bytes(700_000)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.data`, and ends each answer after `server.sent_bytes` bytes.

    It waits for `server.pause_seconds` after each `server.piece_bytes` bytes.
    """

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        server.paths.append(self.path)
        if server.status != 200:
            self.send_error(server.status)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(server.data)))
        self.end_headers()
        sent = server.data[: server.sent_bytes]
        for first in range(0, len(sent), server.piece_bytes):
            # The client may have gone.
            with contextlib.suppress(ConnectionError):
                self.wfile.write(sent[first : first + server.piece_bytes])
            time.sleep(server.pause_seconds)


@contextlib.contextmanager
def file_server():
    """Serves `DATA` under every name; `paths` are the requests."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.data, server.status, server.sent_bytes, server.paths = DATA, 200, None, []
        server.piece_bytes, server.pause_seconds = len(DATA), 0.0
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()
