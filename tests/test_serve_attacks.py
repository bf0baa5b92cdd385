"""`serve` under requests of people who mean harm, and under loads that fill a machine."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

import looklisten as ll
from conftest import write_wav
from http_server import running_server
from looklisten.client import Client, ServerError
from looklisten.errors import ConfigError, OptionError
from looklisten.serving import decoding
from looklisten.serving import server as server_module
from looklisten.serving.options import ServeOptions
from looklisten.serving.requested_files import NAME_BYTES, safe_name
from looklisten.serving.server import listening_socket, read_token
from looklisten.serving.service import open_service

NETWORK = "untrained:tiny"
TOKEN = "correct horse"
HOST = b"Host: 127.0.0.1\r\n"

# After each test with a server that one answers the next request.
pytestmark = pytest.mark.usefixtures("others_are_answered")


@pytest.fixture(scope="module")
def clips(world):
    return sorted(world.glob("*.mp4"))[:3]


@pytest.fixture(scope="module")
def db(untrained_run, clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacks") / "index"
    ll.index(clips[:2], folder, untrained_run)
    return folder


@pytest.fixture(scope="module")
def server(untrained_run, db):
    with running_server(untrained_run, db, max_jobs=3) as started:
        yield started


@pytest.fixture(scope="module")
def media(server):
    return server.client.index().files[0].media


@pytest.fixture(scope="module")
def long_sound(tmp_path_factory):
    """Five minutes of noise: minutes of work, of which a test waits for none."""
    path = tmp_path_factory.mktemp("long") / "noise.wav"
    write_wav(path, np.random.default_rng(0).normal(0, 0.1, 300 * 8000), 8000)
    return path


def raw(port, data):
    """What the server answers to these bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(data)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


# ---------------------------------------------------------------- ranges, tokens, names, hosts


@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        ("bytes=0-3", 206),
        ("bytes=-4", 206),
        ("bytes=4-999999999", 206),
        ("bytes=0-1,6-7", 206),
        ("bytes=999999999-", 416),
        ("bytes=7-3", 400),
        ("bytes=x-y", 400),
        ("meters=0-3", 400),
        ("bytes", 400),
        ("bytes=" + "0-1," * 99 + "0-1", 206),
    ],
)
def test_ranges_of_bytes_that_fit_are_answered_and_others_get_a_sentence(
    server, clips, media, wanted, status
):
    answer = server.http.get(f"/v1/media/{media}", headers={"range": wanted})
    assert answer.status_code == status
    if status == 206:
        assert len(answer.content) <= clips[0].stat().st_size
        return
    assert "range" in answer.json()["error"].lower()
    assert "content-security-policy" in answer.headers
    if status == 416:
        assert answer.headers["content-range"] == f"bytes */{clips[0].stat().st_size}"


def test_ranges_of_a_multipart_answer_hold_the_bytes_that_were_asked_for(server, clips, media):
    answer = server.http.get(f"/v1/media/{media}", headers={"range": "bytes=4-7,20-23"})
    data = clips[0].read_bytes()
    assert data[4:8] in answer.content
    assert data[20:24] in answer.content


def test_a_file_of_the_index_that_is_gone_is_a_404(untrained_run, clips, tmp_path):
    copy = tmp_path / "copy.mp4"
    shutil.copy(clips[0], copy)
    ll.index([copy], tmp_path / "index", untrained_run)
    with running_server(untrained_run, tmp_path / "index") as started:
        name = started.client.index().files[0].media
        copy.unlink()
        answer = started.http.get(f"/v1/media/{name}")
        assert (answer.status_code, name in answer.json()["error"]) == (404, True)
        assert started.http.post("/v1/embed", data={"media": name}).status_code == 404


def test_media_stand_behind_the_token(untrained_run, db, clips, tmp_path):
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN + "\n")
    with running_server(untrained_run, db, token_file=token_file) as guarded:
        with Client(guarded.address, TOKEN) as client:
            file = client.index().files[0]
            job = client.wait(client.overlay(clips[0]), every_seconds=0.05)
        paths = [
            f"/v1/media/{file.media}",
            f"/v1/thumbnails/{file.thumbnail}",
            f"/v1/thumbnails/{file.thumbnail}/map",
            job.file,
        ]
        right = {"authorization": f"Bearer {TOKEN}"}
        guesses = [{}, {"cookie": f"token={TOKEN}"}, {"authorization": TOKEN}]
        guesses += [{"authorization": f"Bearer {TOKEN[:n].strip()}"} for n in range(1, len(TOKEN))]
        for path in paths:
            answers = {guarded.http.get(path, headers=guess).text for guess in guesses}
            # The same answer for a wrong token and for a name that does not exist.
            answers.add(guarded.http.get("/v1/media/0123456789abcdef").text)
            answers.add(guarded.http.get(f"{path}?token={TOKEN}&access_token={TOKEN}").text)
            assert answers == {
                '{"error":"send the token of this server: Authorization: Bearer TOKEN"}'
            }
            assert guarded.http.get(path, headers=right).status_code == 200
        part = guarded.http.get(paths[0], headers=right | {"range": "bytes=0-3"})
        assert (part.status_code, len(part.content)) == (206, 4)


@pytest.mark.parametrize("content", [b"", b" \n", b"two\nlines", "wörter".encode(), b"a\0b"])
def test_a_token_that_no_header_can_hold_is_refused_at_the_start(tmp_path, content):
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(ConfigError, match="token must hold one line of ASCII"):
        read_token(ServeOptions(token_file=tmp_path / "token"))
    with pytest.raises(ConfigError, match="absent cannot be read: No such file"):
        read_token(ServeOptions(token_file=tmp_path / "absent"))


@pytest.mark.parametrize(
    "name",
    ["日" * 100 + ".wav", "💥" * 90 + ".wav", "a/../../b.wav", "..", "\u202evaw.wav", "%00.wav"],
)
def test_odd_names_of_uploads_are_kept_safely(server, tmp_path, name):
    seed = sum(name.encode())
    sound = np.random.default_rng(seed).normal(0, 0.1, 48_000)
    # A tone too, since the index takes no plain noise.
    write_wav(tmp_path / "a.wav", sound / 4 + np.sin(np.arange(48_000) * seed / 9999) / 2, 48_000)
    files = {"file": (name, (tmp_path / "a.wav").read_bytes())}
    job = server.http.post("/v1/index", files=files).json()
    done = server.client.wait(server.client.job(job["id"]), every_seconds=0.05)
    assert done.result["indexed"] == 1
    stored = [path for path in server.service.uploads.rglob("*") if path.is_file()]
    assert all(len(path.name.encode()) <= NAME_BYTES for path in stored)
    assert safe_name(name) in [path.name for path in stored]


@pytest.mark.parametrize("host", [b"[", b"[::1", b"a b", b"\xff", b"", b"evil.example"])
def test_a_host_that_is_no_name_of_this_server_is_refused(server, host):
    answer = raw(
        server.port, b"GET /v1/model HTTP/1.1\r\nConnection: close\r\nHost: " + host + b"\r\n\r\n"
    )
    assert b" 403 " in answer.split(b"\r\n")[0]


@pytest.mark.parametrize("origin", ["http://[", "null", "", "http://127.0.0.1.evil.example"])
def test_an_origin_that_is_no_page_of_this_server_is_refused(server, origin):
    answer = server.http.post("/v1/embed", headers={"origin": origin})
    assert (answer.status_code, "other sites" in answer.json()["error"]) == (403, True)


@pytest.mark.parametrize(
    "request_head",
    [
        b"POST /v1/embed HTTP/1.1\r\nContent-Length: -4\r\n",
        b"POST /v1/embed HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 5\r\n",
        b"GET /healthz HTTP/1.1\r\nBad Header: x\r\n",
        b"GET /healthz SPEAKS/7\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n",
    ],
)
def test_what_is_no_http_is_a_400(server, request_head):
    assert b" 400 " in raw(server.port, request_head + HOST + b"\r\n").split(b"\r\n")[0]


# ---------------------------------------------------------------- bodies


@pytest.mark.parametrize(
    ("body", "kind", "status", "words"),
    [
        (b"{" * 10, "application/json", 422, "the body is no JSON"),
        (b"[" * 200_000, "application/json", 4, ""),
        (b"1" * 4_100_000, "application/json", 413, "at most 4 MB"),
        (b"\xff\xfe", "application/json", 4, ""),
        (b'{"classes":{"a":[{"media":"z","seconds":NaN}]}}', "application/json", 422, "seconds"),
        (b'{"name":"../x","classes":{"a":[]}}', "application/json", 422, "name"),
    ],
)
def test_bodies_that_are_no_request_for_tags_get_a_sentence(server, body, kind, status, words):
    answer = server.http.post("/v1/tags", content=body, headers={"content-type": kind})
    assert answer.status_code in (status, *range(status * 100, status * 100 + 99))
    assert words in answer.json()["error"]


def test_forms_that_are_no_request_get_a_sentence(server):
    head = b'--b\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\nx\r\n'
    end = b"--b--\r\n"
    form = "multipart/form-data; boundary=b"
    url = "application/x-www-form-urlencoded"
    bodies = {
        "Too many fields": (form, b"".join(head % (b"f%d" % n, b"") for n in range(1100)) + end),
        "Too many files": (form, head % (b"file", b'; filename="a"') * 1100 + end),
        "Invalid multipart data": (form, b"--b\r\n" + b"X-A: b\r\n" * 100_000 + end),
        "exceeded maximum size": (form, (head % (b"layer", b"")).replace(b"x", bytes(2**21)) + end),
        "file: send a file with a name": (form, head % (b"file", b"") + end),
        "Missing boundary": ("multipart/form-data", end),
        "at most 4 MB": (url, b"a=b&" * 1_100_000),
    }
    for words, (kind, body) in bodies.items():
        answer = server.http.post("/v1/embed", content=body, headers={"content-type": kind})
        assert 400 <= answer.status_code < 500, words
        assert words in answer.json()["error"]


def test_filters_that_nest_without_end_get_a_sentence(server):
    for where in ("(" * 1000, "NOT " * 240, "label = 'a' OR " * 60, "'", "seconds < "):
        answer = server.http.post("/v1/search", data={"tag": "x", "where": where})
        assert (answer.status_code, bool(answer.json()["error"])) == (422, True)


def test_unknown_addresses_and_methods_get_a_sentence(server):
    assert "no such address" in server.http.get("/v1/nothing").json()["error"]
    assert "takes no PUT; /openapi.json" in server.http.put("/v1/embed").json()["error"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_large_uploads_leave_no_file_open(server, tmp_path):
    """The framework closes an upload after the answer, when the client may have left."""
    sound = tmp_path / "sound.wav"
    # More than the megabyte that the framework keeps in memory.
    write_wav(sound, np.sin(np.arange(13 * 48_000) / 20) / 2, 48_000)
    assert sound.stat().st_size > 2**20
    before = removed_files()
    for _ in range(8):
        with httpx.Client(base_url=server.address, timeout=60) as client:
            data = {"side": "audio", "hop_seconds": "600"}
            answer = client.post("/v1/embed", data=data, files={"file": sound.read_bytes()})
            assert answer.status_code == 200
    until(lambda: not server.service.requests_in_flight)
    until(lambda: removed_files() <= before, 5)


def removed_files():
    """How many open files of this process have no name any more, as temporary files have none."""
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            count += str(descriptor.readlink()).endswith("(deleted)")
    return count


# ---------------------------------------------------------------- slow and many clients


def test_silent_connections_keep_nobody_else_waiting(server, clips):
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            silent = socket.create_connection(("127.0.0.1", server.port), timeout=20)
            stack.enter_context(contextlib.closing(silent)).sendall(b"GET /v1/")
        began = time.monotonic()
        assert server.client.embed(clips[0]).width
        assert time.monotonic() - began < 10


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux has this option")
def test_a_client_that_reads_nothing_is_left(untrained_run, tmp_path, monkeypatch):
    monkeypatch.setattr(server_module, "ANSWER_SECONDS", 1)
    sound = tmp_path / "long.wav"
    # An answer of many megabytes: more than the system keeps for a client.
    write_wav(sound, np.sin(np.arange(240 * 48_000) / 20) / 2, 48_000)
    ll.index([sound], tmp_path / "index", untrained_run)
    with running_server(untrained_run, tmp_path / "index") as started:
        name = started.client.index().files[0].media
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", started.port))
            connection.sendall(b"GET /v1/media/%s HTTP/1.1\r\n%s\r\n" % (name.encode(), HOST))
            connections = started.server.server_state.connections
            until(
                lambda: any(each.client[1] == connection.getsockname()[1] for each in connections)
            )
            until(
                lambda: all(each.client[1] != connection.getsockname()[1] for each in connections)
            )


def test_decoded_files_that_wait_are_bounded(untrained_run, clips, monkeypatch):
    """With room for one decoded file, requests are still all answered, one after the other."""
    monkeypatch.setattr(decoding, "MOST_DECODED_BYTES", 1)
    most = []
    with running_server(untrained_run, decoders=2) as started:
        hold = started.service.decoders._hold
        count = 0

        def counted(held_bytes):
            nonlocal count
            count += 1 if held_bytes > 0 else -1
            most.append(count)
            hold(held_bytes)

        monkeypatch.setattr(started.service.decoders, "_hold", counted)
        with httpx.Client(base_url=started.address, timeout=60) as http:
            data = clips[0].read_bytes()
            statuses = []
            threads = [
                threading.Thread(
                    target=lambda: statuses.append(
                        http.post("/v1/embed", files={"file": data}).status_code
                    )
                )
                for _ in range(12)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
    assert statuses == [200] * 12
    # Those that began when there was room: two for each of the two decoders.
    assert max(most) <= 4
    assert count == 0


# ---------------------------------------------------------------- jobs


def test_a_running_job_is_canceled_and_leaves_nothing(server, long_sound):
    before = server.client.index().moments
    job = server.client.add(long_sound)
    until(lambda: server.client.job(job.id).state == "running")
    assert server.client.cancel(job).state in ("running", "canceled")
    until(lambda: server.client.job(job.id).state == "canceled")
    assert server.client.index().moments == before
    assert not list(server.service.uploads.rglob("noise.wav"))
    assert not (Path(server.service._folder.name) / job.id).exists()


def test_a_running_overlay_is_canceled_and_a_waiting_one_never_begins(server, long_video):
    running = server.client.overlay(long_video)
    waiting = server.client.overlay(long_video)
    until(lambda: server.client.job(running.id).done > 0)
    assert server.client.cancel(waiting).state == "canceled"
    server.client.cancel(running)
    until(lambda: server.client.job(running.id).state == "canceled")
    assert server.http.get(f"/v1/jobs/{running.id}/file").status_code == 404
    for job in (running, waiting):
        assert not (Path(server.service._folder.name) / job.id).exists()
        # A second cancel forgets a job that is over.
        server.client.cancel(job)
        with pytest.raises(ServerError, match="no job"):
            server.client.job(job.id)


@pytest.fixture(scope="module")
def long_video(clips, tmp_path_factory):
    """Many seconds of video, so that its job runs long enough to be canceled."""
    import av

    path = tmp_path_factory.mktemp("video") / "long.mp4"
    with av.open(clips[0]) as source:
        frames = [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]
    with av.open(path, "w") as container:
        video = container.add_stream("mpeg4", 12)
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", 48_000, layout="mono")
        for number in range(12 * 40):
            frame = av.VideoFrame.from_ndarray(frames[number % len(frames)], format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        tone = (np.sin(np.arange(48_000 * 40) / 30) / 3).astype(np.float32)[None]
        for start in range(0, tone.shape[1], 1024):
            sound = av.AudioFrame.from_ndarray(
                tone[:, start : start + 1024], format="fltp", layout="mono"
            )
            sound.sample_rate, sound.pts = 48_000, start
            container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
    return path


def test_a_canceled_upload_of_a_known_file_keeps_the_first_one(server, clips):
    first = server.client.wait(server.client.add(clips[2]), every_seconds=0.05)
    assert first.result["indexed"] == 1
    again = server.client.add(clips[2])
    server.client.cancel(again)
    until(lambda: server.client.job(again.id).state in ("canceled", "done"))
    (file,) = [each for each in server.client.index().files if each.name == clips[2].name]
    assert server.http.get(f"/v1/media/{file.media}").content == clips[2].read_bytes()


def test_several_jobs_at_once_are_all_done_and_one_too_many_gets_429(server, clips):
    jobs = []
    with pytest.raises(ServerError, match="3 jobs wait already") as caught:
        for _ in range(20):
            jobs.append(server.client.overlay(clips[0]))
    assert caught.value.status == 429
    for job in jobs:
        done = server.client.wait(job, every_seconds=0.05)
        assert done.state == "done"
        assert b"ftyp" in server.http.get(done.file).content[:12]
        # The upload is not kept with the video.
        folder = Path(server.service._folder.name) / job.id
        assert [path.name for path in folder.iterdir()] == ["overlay.mp4"]


def test_jobs_that_are_over_do_not_fill_the_disk(server, clips, monkeypatch):
    monkeypatch.setattr("looklisten.serving.jobs.MOST_KEPT", 2)
    jobs = []
    for _ in range(4):
        jobs.append(server.client.wait(server.client.overlay(clips[0]), every_seconds=0.05))
    assert server.client.job(jobs[-1].id).state == "done"
    assert server.http.get(f"/v1/jobs/{jobs[0].id}").status_code == 404
    assert len(list(Path(server.service._folder.name).iterdir())) <= 3


def test_no_sentence_names_a_folder_of_the_server(server, db, clips):
    hits = server.client.search(clips[0], threshold=0).hits
    marked = [{"media": hit.media, "seconds": hit.seconds} for hit in hits[:1]]
    with pytest.raises(ServerError) as caught:
        server.client.wait(server.client.learn_tags({"one": marked}), every_seconds=0.05)
    assert "give at least" in str(caught.value)
    for folder in (db, db.parent, Path(server.service._folder.name)):
        assert str(folder) not in str(caught.value)
    sentence = server.service.without_paths(f"{db} is locked; see {db / 'lock'}")
    assert sentence == f"{db.name} is locked; see {db.name}/lock"


# ---------------------------------------------------------------- the whole process


@contextlib.contextmanager
def served(*options, prefix=(), **variables):
    """`looklisten serve` in a process of its own: the process and its port."""
    command = [*prefix, sys.executable, "-m", "looklisten", "serve", "--checkpoint", NETWORK]
    environment = os.environ | variables
    process = subprocess.Popen(
        [*command, "--port", "0", *options], stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "answers at" in line:
                break
        found = re.search(r":(\d+)/", "".join(lines))
        assert found, lines
        # What the server writes later must not fill the pipe.
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield process, int(found[1])
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_a_sigterm_ends_a_job_that_takes_too_long_and_exits_with_0(long_video, tmp_path):
    options = ("--shutdown-seconds", "1")
    with served(*options, TMPDIR=str(tmp_path)) as (process, port):
        with Client(f"http://127.0.0.1:{port}") as client:
            for _ in range(3):
                job = client.overlay(long_video)
            until(lambda: client.job(job.id).state in ("queued", "running"))
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            until(lambda: httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 503, 5)
        assert process.wait(20) == 0
        assert time.monotonic() - began < 15
    assert not list(tmp_path.glob("looklisten-serve-*"))


def test_a_full_disk_is_a_sentence_and_room_is_used_again(clips, tmp_path):
    """The temporary files lie on a file system of two megabytes."""
    small = tmp_path / "small"
    small.mkdir()
    mount = f'mount -t tmpfs -o size=2m tmpfs {small} && exec "$@"'
    prefix = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh")
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], check=False).returncode:
        pytest.skip("needs unshare and user namespaces")
    with (
        served(prefix=prefix, TMPDIR=str(small)) as (_, port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http,
    ):
        for size in (1_200_000, 3_000_000):
            # The first fits once but not twice, the second not at all.
            answer = http.post("/v1/embed", files={"file": ("big.wav", bytes(size))})
            assert (answer.status_code, answer.headers["retry-after"]) == (413, "60")
            assert "the disk of the server is full" in answer.json()["error"]
            whole = http.post("/v1/embed", files={"file": clips[0].read_bytes()})
            assert whole.status_code == 200


def test_an_address_that_is_taken_and_a_root_that_is_no_folder_are_sentences(server, tmp_path):
    with pytest.raises(ConfigError, match=rf"port {server.port}: Address already in use; choose"):
        listening_socket(ServeOptions(port=server.port))
    with pytest.raises(OptionError, match="port 70000 must be at most 65535"):
        ServeOptions(port=70_000)
    with pytest.raises(ConfigError, match="absent is no folder"):
        open_service(NETWORK, None, ServeOptions(allow_root=tmp_path / "absent"))


def test_a_missing_extra_is_one_sentence():
    program = (
        "import sys; sys.modules[%r] = None\n"
        "from looklisten.app.cli import main\n"
        "sys.exit(main(['serve', '--checkpoint', 'untrained:tiny']))"
    )
    for package in ("fastapi", "uvicorn", "prometheus_client"):
        result = subprocess.run(
            [sys.executable, "-c", program % package], capture_output=True, text=True, check=False
        )
        words = " ".join(result.stderr.split())
        assert result.returncode not in (0, None)
        assert f"serve needs the package {package}; run: pip install 'looklisten[serve]'" in words
        assert "Traceback" not in words
    client = "import sys; sys.modules['httpx'] = None; import looklisten.client"
    result = subprocess.run(
        [sys.executable, "-c", client], capture_output=True, text=True, check=False
    )
    assert "the client needs the package httpx; run: pip install" in result.stderr
