"""`serve` under hostile requests: each ends in a 4xx with a sentence, and others are answered."""

import asyncio
import contextlib
import json
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from pathlib import Path

import av
import httpx
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from PIL import Image
from schemathesis import GenerationMode

import decoder_jobs
import looklisten as ll
from conftest import write_wav
from http_server import running_server
from looklisten.client import Client, ServerError
from looklisten.errors import OptionError
from looklisten.media.isolation.parent import call_isolated
from looklisten.serving.application import build_app
from looklisten.serving.options import ServeOptions
from looklisten.serving.requested_files import RequestedFile, safe_name
from looklisten.serving.service import Service

LIMITS = {
    "max_megabytes": 1.0,
    "max_seconds": 3.0,
    "max_megapixels": 0.05,
    "max_streams": 2,
    "queue_size": 4,
    "body_seconds": 1.5,
    "idle_seconds": 1,
    "stall_seconds": 2.0,
}
TOKEN = "correct horse"
EXAMPLES = 5
"""Of each route, of right and of wrong requests."""

# After each test with a server that one answers the next request.
pytestmark = pytest.mark.usefixtures("others_are_answered")


@pytest.fixture(scope="module")
def clip(world):
    return world / "000000.mp4"


@pytest.fixture(scope="module")
def server(untrained_run, clip, tmp_path_factory):
    """A server with small limits and an index of one video."""
    db = tmp_path_factory.mktemp("limits") / "index"
    ll.index([clip], db, untrained_run)
    with running_server(untrained_run, db, **LIMITS) as started:
        yield started
        # Whatever the tests sent, no temporary file is left but those of jobs.
        jobs = started.service.jobs
        names = {path.name for path in Path(started.service._folder.name).iterdir()}
        assert names <= set(jobs._jobs)
    assert not Path(started.service._folder.name).exists()


@pytest.fixture(scope="module")
def root(clip, tmp_path_factory):
    """A folder that requests may name, with a link that leads out of it."""
    folder = tmp_path_factory.mktemp("root")
    (folder / "inside").mkdir()
    (folder / "inside" / "clip.mp4").write_bytes(clip.read_bytes())
    (folder / "link.mp4").symlink_to(clip)
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    return folder


@pytest.fixture(scope="module")
def guarded(untrained_run, root, tmp_path_factory):
    """A server with a token, a rate and a folder that requests may name."""
    token_file = tmp_path_factory.mktemp("token") / "token"
    token_file.write_text(TOKEN + "\n")
    options = {"token_file": token_file, "allow_root": root, "requests_per_minute": 30}
    with running_server(untrained_run, **options) as started:
        yield started


def post(server, route, data=None, **files):
    """The status and the sentence of an answer to an upload."""
    response = server.http.post(route, files=files or None, data=data)
    return response.status_code, response.json().get("error", "")


def send_raw(server, *parts, read=True):
    """What the server answers to these bytes, sent as they are."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        try:
            for part in parts:
                connection.sendall(part)
        except OSError:
            pass  # it closed the connection, having read enough
        answer = b""
        try:
            while read and (data := connection.recv(65536)):
                answer += data
        except OSError:
            pass
        return answer


def png_of(width, height):
    """A PNG file that says to be so large, and holds nothing."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = b""
    for name, body in ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")):
        chunks += struct.pack(">I", len(body)) + name + body
        chunks += struct.pack(">I", zlib.crc32(name + body))
    return b"\x89PNG\r\n\x1a\n" + chunks


POST = b"POST /v1/embed HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'


def test_a_body_that_says_to_be_too_large_is_not_read(server):
    answer = send_raw(server, POST + b"Content-Length: 900000000\r\n\r\n", PART)
    assert b" 413 " in answer
    assert b"the request is too large; at most 1 MB are allowed" in answer


def test_a_body_without_end_is_cut_off(server):
    block = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    start = POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n%s\r\n" % (len(PART), PART)
    assert b" 413 " in send_raw(server, start, *[block] * 40)


def test_a_slow_sender_gets_408_while_others_are_answered(server, clip):
    answers = []
    start = POST + b"Content-Length: 90000\r\n\r\n" + PART
    slow = threading.Thread(target=lambda: answers.append(send_raw(server, start)))
    slow.start()
    assert server.client.embed(clip).width
    slow.join(20)
    assert b" 408 " in answers[0]
    assert b"did not arrive within 1.5 s" in answers[0]


def test_a_head_that_never_ends_is_closed(server):
    began = time.monotonic()
    assert send_raw(server, b"POST /v1/embed HTTP/1.1\r\nHost: ") == b""
    assert time.monotonic() - began < 10


def test_a_flood_of_headers_is_refused(server):
    flood = b"".join(b"X-%d: %s\r\n" % (number, bytes(100).hex().encode()) for number in range(500))
    assert b" 400 " in send_raw(server, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n" + flood)


def test_a_full_queue_answers_429_with_a_time(server, clip):
    start = POST + b"Content-Length: 90000\r\n\r\n" + PART
    slow = [
        threading.Thread(target=send_raw, args=(server, start)) for _ in range(LIMITS["queue_size"])
    ]
    for thread in slow:
        thread.start()
    deadline = time.monotonic() + 10
    while server.service.requests_in_flight < LIMITS["queue_size"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    response = server.http.post("/v1/embed", files={"file": clip.read_bytes()})
    assert (response.status_code, response.headers["retry-after"]) == (429, "1")
    assert server.http.get("/readyz").status_code == 200
    for thread in slow:
        thread.join(20)


@pytest.mark.parametrize(
    ("size", "words"),
    [((400, 400), "400 x 400 pixels"), ((60_000, 60_000), "at most 0.05 megapixels")],
)
def test_pixel_bombs_are_refused_by_their_head(server, size, words):
    status, sentence = post(server, "/v1/embed", file=("bomb.png", png_of(*size)))
    assert status == 422
    assert words in sentence
    assert sentence.startswith("bomb.png")


def test_zip_bombs_and_texts_are_no_media(server, tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zeros", bytes(50_000_000))
    for name, data in (
        ("bomb.zip", (tmp_path / "bomb.zip").read_bytes()),
        ("a.mp4", b"hello"),
        ("empty.wav", b""),
        ("list.m3u8", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"),
        ("page.svg", b'<svg xmlns="http://www.w3.org/2000/svg"><script/></svg>'),
    ):
        for route in ("/v1/embed", "/v1/score", "/v1/localize", "/v1/search"):
            status, sentence = post(server, route, file=(name, data))
            assert (status, sentence[: len(name)]) == (422, name), route


def test_long_sounds_and_many_streams_are_refused(server, tmp_path):
    write_wav(tmp_path / "long.wav", np.zeros(4 * 8000), 8000)
    with av.open(tmp_path / "many.mkv", "w") as container:
        streams = [container.add_stream("pcm_s16le", 8000, layout="mono") for _ in range(3)]
        for stream in streams:
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 800), np.int16), format="s16", layout="mono"
            )
            frame.sample_rate, frame.pts = 8000, 0
            container.mux(stream.encode(frame))
    for name, words in (("long.wav", "at most 3 s are allowed"), ("many.mkv", "at most 2")):
        status, sentence = post(server, "/v1/embed", file=(name, (tmp_path / name).read_bytes()))
        assert status == 422
        assert words in sentence


def test_a_length_that_a_file_hides_is_found_while_it_is_read(server, tmp_path):
    write_wav(tmp_path / "long.wav", np.random.default_rng(0).normal(0, 0.1, 5 * 8000), 8000)
    data = bytearray((tmp_path / "long.wav").read_bytes())
    # FFmpeg reads on to the end of a file whose head declares no length.
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    status, sentence = post(server, "/v1/embed", file=("long.wav", bytes(data)))
    assert status == 422
    assert "at most 3 s are allowed" in sentence


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"hop_seconds": "0"}, "hop_seconds: Input should be greater than"),
        ({"hop_seconds": "nan"}, "hop_seconds"),
        ({"side": "smell"}, "side: Input should be 'auto', 'audio' or 'vision'"),
        ({"layer": "fc9"}, "there is no layer 'fc9'"),
        ({"media": "0123456789abcdef"}, "give one of an upload"),
        ({"path": "/etc/passwd"}, "give one of an upload"),
    ],
)
def test_wrong_fields_get_a_sentence(server, clip, data, words):
    status, sentence = post(server, "/v1/embed", data, file=("clip.mp4", clip.read_bytes()))
    assert status == 422
    assert words in sentence


def test_wrong_types_of_requests_get_a_sentence(server):
    for content, kind in ((b"{}", "application/json"), (b"\xff", "text/plain"), (b"", "a/b")):
        response = server.http.post("/v1/embed", content=content, headers={"content-type": kind})
        assert response.status_code == 422
        assert response.json()["error"]
    bad = server.http.post("/v1/tags", content=b"{", headers={"content-type": "application/json"})
    assert bad.status_code == 422
    assert server.http.put("/v1/embed").status_code == 405


@pytest.mark.parametrize(
    "path",
    [
        "/v1/media/..%2f..%2fetc%2fpasswd",
        "/v1/media/%2fetc%2fpasswd",
        "/v1/thumbnails/..%2f..%2f..%2findex.json",
        "/v1/thumbnails/0000000000000000000-000000000",
        "/static/..%2f..%2foptions.py",
        "/static/%2e%2e/options.py",
        "/v1/jobs/..%2f..%2fx/file",
        "/v1/media/%00",
    ],
)
def test_no_path_leads_to_a_file(server, path):
    answer = send_raw(
        server, b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n" % path.encode()
    )
    assert b" 404 " in answer.split(b"\r\n")[0]


def test_names_of_uploads_stay_in_their_folder():
    assert safe_name("../../etc/passwd") == "passwd"
    assert safe_name("C:\\windows\\a b.mp4") == "a b.mp4"
    assert safe_name("..") == "upload"
    assert safe_name("\x00\n<script>.wav") == "___script_.wav"
    assert len(safe_name("x" * 5000)) == 100


def test_a_hanging_or_crashing_decoder_costs_one_request(server, clip):
    file = RequestedFile(clip, "clip.mp4")

    def read(job, *arguments):
        return lambda _: call_isolated(job, *arguments, source=file.path)

    decoders = server.service.decoders
    for function, words in (
        (read(decoder_jobs.sleepy, 60), "did not advance for 2 s"),
        (read(decoder_jobs.dies), "crashed its process"),
    ):
        with pytest.raises(ll.LookListenError, match=words) as caught:
            asyncio.run(decoders.run(function, file))
        assert caught.value.status == 422
        assert str(clip) not in str(caught.value)
    assert server.client.embed(clip).width


def test_work_of_a_client_who_left_is_dropped(server, clip):
    body = PART + clip.read_bytes() + b"\r\n--b--\r\n"
    for _ in range(5):
        send_raw(server, POST + b"Content-Length: %d\r\n\r\n" % len(body), body, read=False)
    deadline = time.monotonic() + 20
    while server.service.requests_in_flight:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert server.service.batcher.waiting == 0


def test_pages_of_other_sites_and_other_names_are_refused(server, clip):
    files = {"file": clip.read_bytes()}
    evil = server.http.post("/v1/embed", files=files, headers={"origin": "https://evil.example"})
    assert (evil.status_code, "pages of other sites" in evil.text) == (403, True)
    own = server.http.post("/v1/embed", files=files, headers={"origin": server.address})
    assert own.status_code == 200
    rebound = server.http.get("/v1/model", headers={"host": "evil.example"})
    assert rebound.status_code == 403


def test_every_answer_has_the_headers_of_safety(server):
    for path in ("/", "/healthz", "/v1/nothing", "/v1/media/x"):
        headers = server.http.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers


def test_a_token_is_asked_for(guarded, clip):
    assert guarded.http.get("/healthz").status_code == 200
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}):
        response = guarded.http.get("/v1/model", headers=headers)
        assert response.status_code == 401
        assert "Authorization: Bearer TOKEN" in response.json()["error"]
    with Client(guarded.address, TOKEN) as client:
        assert client.model().name == "untrained:tiny"
        assert client.embed(clip).width
    with Client(guarded.address) as stranger, pytest.raises(ServerError, match="token"):
        stranger.embed(clip)


def test_paths_below_the_root_alone_are_opened(guarded, root, clip):
    headers = {"authorization": f"Bearer {TOKEN}"}

    def ask(path):
        return guarded.http.post("/v1/embed", data={"path": path}, headers=headers)

    assert ask("inside/clip.mp4").status_code == 200
    for path in (
        "link.mp4",
        "loop.mp4",
        "../",
        str(clip),
        "/etc/passwd",
        "inside",
        "inside/../../x",
        "http://example.org/a.mp4",
        "a\0b",
        "x" * 3000,
    ):
        response = ask(path)
        assert response.status_code == 403, path
        assert "no such file in the folder" in response.json()["error"]


def test_one_client_has_a_rate(guarded):
    headers = {"authorization": f"Bearer {TOKEN}"}
    statuses = []
    for _ in range(40):
        response = guarded.http.post("/v1/embed", headers=headers)
        statuses.append(response.status_code)
        if response.status_code == 429:
            break
    assert statuses[-1] == 429
    assert int(response.headers["retry-after"]) >= 1
    assert "30 requests a minute" in response.json()["error"]
    assert guarded.http.get("/v1/model", headers=headers).status_code == 200


def test_without_an_index_there_is_a_sentence(guarded):
    headers = {"authorization": f"Bearer {TOKEN}"}
    response = guarded.http.get("/v1/index", headers=headers)
    assert (response.status_code, "--db DB" in response.text) == (404, True)


def mutated(data, chance):
    """A media file with damage of one kind."""
    damaged = bytearray(data)
    kind = chance.randrange(4)
    if kind == 0:
        for _ in range(chance.choice((1, 10, 200))):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
    elif kind == 1:
        del damaged[chance.randrange(len(damaged)) :]
    elif kind == 2:
        at = chance.randrange(len(damaged))
        damaged[at : at + chance.randrange(1, 2000)] = chance.randbytes(chance.randrange(2000))
    else:
        damaged[: chance.randrange(1, 200)] = chance.randbytes(chance.randrange(1, 200))
    return bytes(damaged)


def send_mutated(server, clip, tmp_path, count):
    """How often each status came for so many damaged files."""
    write_wav(tmp_path / "tone.wav", np.sin(np.arange(12_000) / 20) / 2, 48_000)
    Image.fromarray(np.zeros((90, 120, 3), np.uint8)).save(tmp_path / "black.png")
    Image.fromarray(np.zeros((90, 120, 3), np.uint8)).save(tmp_path / "black.jpg")
    originals = [clip, *(tmp_path / name for name in ("tone.wav", "black.png", "black.jpg"))]
    routes = ("/v1/embed", "/v1/score", "/v1/localize", "/v1/search")
    chance = random.Random(0)
    statuses = []
    for number in range(count):
        original = originals[number % len(originals)]
        data = mutated(original.read_bytes(), chance)
        route = routes[number // len(originals) % len(routes)]
        statuses.append(post(server, route, file=(original.name, data))[0])
    return statuses


def test_damaged_files_are_answered(server, clip, tmp_path):
    statuses = send_mutated(server, clip, tmp_path, 32)
    assert set(statuses) <= {200, 422}
    assert 422 in statuses


@pytest.mark.slow
def test_five_hundred_damaged_files_are_answered(server, clip, tmp_path):
    assert set(send_mutated(server, clip, tmp_path, 500)) <= {200, 422}


@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")
def test_requests_made_from_the_document_find_no_fault(server):
    """Right and wrong requests that schemathesis makes of each route in the OpenAPI document."""
    schema = schemathesis.openapi.from_url(f"{server.address}/openapi.json")
    statuses = []
    operations = [operation.ok() for operation in schema.get_all_operations()]
    assert len(operations) >= 18
    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @given(operation.as_strategy(generation_mode=mode))
            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
            )
            def ask(case):
                response = case.call()
                statuses.append(response.status_code)
                assert response.status_code < 500, (case.method, case.path, response.text)
                if response.status_code >= 400 and case.method != "HEAD":
                    assert response.json()["error"]

            with contextlib.suppress(Unsatisfiable):
                ask()
    assert {200, 404, 422} <= set(statuses)


def test_sigterm_finishes_what_runs_refuses_what_is_new_and_exits_with_0(clip):
    command = [sys.executable, "-m", "looklisten", "serve", "--checkpoint", "untrained:tiny"]
    process = subprocess.Popen([*command, "--port", "0"], stderr=subprocess.PIPE, text=True)
    try:
        port = next(
            int(line.rsplit(":", 1)[1].strip(" /\n"))
            for line in process.stderr
            if "answers at" in line
        )
        data = clip.read_bytes()
        body = PART + data + b"\r\n--b--\r\n"
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body[:-9])
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            refused = httpx.post(f"http://127.0.0.1:{port}/v1/embed", files={"file": data})
            assert (refused.status_code, "stopping" in refused.text) == (503, True)
            assert httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 503
            connection.sendall(body[-9:])
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        assert b" 200 " in answer.split(b"\r\n")[0]
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["vectors"]
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_options_are_checked():
    with pytest.raises(OptionError, match="queue_size 0 must be at least 1"):
        ServeOptions(queue_size=0)


def test_a_fault_of_the_server_is_one_sentence_with_the_headers_of_all_answers(
    untrained_run, caplog
):
    app = build_app(Service(untrained_run, None, ServeOptions()))

    @app.get("/fault")
    def fault():
        raise RuntimeError("secret of the code")

    async def ask():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.get("/fault")

    answer = asyncio.run(ask())
    assert answer.status_code == 500
    assert answer.json() == {"error": "the server has a fault, and its log has the details"}
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "secret of the code" in caplog.text
