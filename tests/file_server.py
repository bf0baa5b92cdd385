"""A real HTTP server that serves one file, whole, cut or not at all."""

import contextlib
import http.server
import threading

import numpy as np

DATA = np.random.default_rng(0).bytes(700_000)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.data`, and ends each answer after `server.sent_bytes` bytes."""

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
        self.wfile.write(server.data[: server.sent_bytes])


@contextlib.contextmanager
def file_server():
    """Serves `DATA` under every name; `paths` are the requests."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.data, server.status, server.sent_bytes, server.paths = DATA, 200, None, []
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()
