"""A Hub on this machine for the real client to talk to: the requests by which it makes, fills and
reads a small model.

It holds what was uploaded and nothing else. Large files go another way on the true Hub (LFS, Xet),
which this one does not have.
"""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class HubServer(ThreadingHTTPServer):
    """`models`: name -> file -> bytes; `created`: name -> what was asked for; `asked`: every
    request, method and path.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answers)
        self.models, self.created, self.asked = {}, {}, []
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Answers(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(f"POST {self.path}")
        match self.path.strip("/").split("/"):
            case ["api", "repos", "create"]:
                about = json.loads(body)
                name = (
                    f"{about['organization']}/{about['name']}"
                    if about.get("organization")
                    else about["name"]
                )
                self.server.models.setdefault(name, {})
                self.server.created[name] = about
                self._json({"url": f"{self.server.endpoint}/{name}", "name": name, "id": name})
            case ["api", "models", _, _, "preupload", _]:
                files = json.loads(body)["files"]
                self._json(
                    {
                        "files": [
                            {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                            for f in files
                        ]
                    }
                )
            case ["api", "models", org, model, "commit", _]:
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        self.server.models[f"{org}/{model}"][line["value"]["path"]] = (
                            base64.b64decode(line["value"]["content"])
                        )
                commit = self._commit(f"{org}/{model}")
                self._json(
                    {
                        "commitUrl": f"{self.server.endpoint}/{org}/{model}/commit/{commit}",
                        "commitOid": commit,
                    }
                )
            case _:
                self._json({"valid": True})

    def do_GET(self):
        self.server.asked.append(f"{self.command} {self.path}")
        match self.path.partition("?")[0].strip("/").split("/"):
            case ["api", "models", org, model, "tree", _]:
                files = self.server.models[f"{org}/{model}"].items()
                self._json(
                    [
                        {"type": "file", "path": name, "size": len(data), "oid": _hash(data)}
                        for name, data in files
                    ]
                )
            case ["api", "models", org, model, *_] if f"{org}/{model}" in self.server.models:
                name = f"{org}/{model}"
                files = [{"rfilename": file} for file in self.server.models[name]]
                self._json(
                    {
                        "id": name,
                        "modelId": name,
                        "sha": self._commit(name),
                        "siblings": files,
                        "tags": [],
                        "private": False,
                    }
                )
            case [org, model, "resolve", _, file] if file in self.server.models.get(
                f"{org}/{model}", {}
            ):
                data = self.server.models[f"{org}/{model}"][file]
                self._send(
                    200,
                    data,
                    ETag=f'"{_hash(data)}"',
                    **{"X-Repo-Commit": self._commit(f"{org}/{model}")},
                )
            case _:
                self._send(
                    404,
                    b"{}",
                    **{"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository Not Found"},
                )

    do_HEAD = do_GET  # noqa: N815

    def _commit(self, name):
        return _hash(repr(sorted(self.server.models[name].items())).encode())

    def _json(self, value):
        self._send(200, json.dumps(value).encode(), **{"Content-Type": "application/json"})

    def _send(self, code, data, **headers):
        self.send_response(code)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_):
        pass


def _hash(data):
    return hashlib.sha1(data).hexdigest()
