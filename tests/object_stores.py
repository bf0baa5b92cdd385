"""An object store with the interface of S3, in this process, for tests of what is kept there."""

import itertools
import logging
import os
import urllib.request
import warnings
from contextlib import contextmanager
from functools import cache

KEY, SECRET = "key of the tests", "secret of the tests"
# Not the configuration of a person who runs the tests.
UNSET = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL")

_numbers = itertools.count()


@cache
def endpoint():
    """The address of the one server of this process, which ends with it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    return "http://{}:{}".format(*server.get_host_and_port())


def send(method, path, body=None):
    """A request to the server."""
    kind = {"Content-Type": "text/plain"}
    request = urllib.request.Request(endpoint() + path, body, kind, method=method)
    with urllib.request.urlopen(request) as answer:
        return answer.read()


def new_bucket(monkeypatch):
    """The address of a new table; this process and its children find the server, with keys."""
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT": endpoint(),
        "AWS_ALLOW_HTTP": "true",
        # No other place has keys, and nobody waits for an answer from there.
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_CONFIG_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{next(_numbers)}"
    send("PUT", f"/{name}")
    return f"s3://{name}/moments"


@contextmanager
def access_denied():
    """The server checks keys, and knows none."""
    send("POST", "/moto-api/reset-auth", b"0")
    try:
        yield
    finally:
        send("POST", "/moto-api/reset-auth", b"inf")
