"""`serve`: each route of a real server gives what the library gives."""

import asyncio
import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import looklisten as ll
from conftest import write_wav
from http_server import running_server
from looklisten.client import ServerError
from looklisten.serving.options import ServeOptions
from looklisten.serving.records import MarkedMoment, UnitsReply
from looklisten.serving.service import open_service

NETWORK = "untrained:tiny"


@pytest.fixture(scope="module")
def clips(world):
    return sorted(world.glob("*.mp4"))[:5]


@pytest.fixture(scope="module")
def server(untrained_run, clips, tmp_path_factory):
    db = tmp_path_factory.mktemp("serve") / "index"
    ll.index(clips[:4], db, untrained_run)
    with running_server(untrained_run, db) as started:
        yield started


def vectors_of(reply):
    return np.array(reply.vectors, np.float32)


@pytest.mark.parametrize("side", ["audio", "vision"])
def test_vectors_are_those_of_the_library(server, untrained_run, clips, side):
    reply = server.client.embed(clips[0], side=side, hop_seconds=0.3)
    wanted = ll.embed(clips[0], untrained_run.network, side, hop_seconds=0.3)
    assert (reply.side, reply.layer, reply.width) == (side, wanted.layer, wanted.vectors.shape[1])
    assert np.array_equal(vectors_of(reply), wanted.vectors)
    assert reply.start_seconds == wanted.start_seconds.tolist()


def test_batches_of_mixed_lengths_give_the_vectors_of_single_requests(
    server, untrained_run, clips, tmp_path
):
    files = [*clips[:3]]
    for number, seconds in enumerate((0.2, 0.7, 1.0, 1.3, 2.5, 4.1)):
        files.append(tmp_path / f"{number}.wav")
        samples = np.arange(int(seconds * 48_000))
        write_wav(files[-1], np.sin(samples / (20 + number)) / 2, 48_000)
    files.append(tmp_path / "picture.png")
    pixels = np.random.default_rng(1).integers(0, 255, (90, 120, 3), np.uint8)
    Image.fromarray(pixels).save(files[-1])
    wanted = {file: ll.embed(file, untrained_run.network, hop_seconds=0.4) for file in files}
    before = batch_counts(server)
    with ThreadPoolExecutor(10) as threads:
        replies = list(
            threads.map(lambda file: server.client.embed(file, hop_seconds=0.4), 4 * files)
        )
    for file, reply in zip(4 * files, replies, strict=True):
        assert np.array_equal(vectors_of(reply), wanted[file].vectors), file.name
        assert reply.start_seconds == wanted[file].start_seconds.tolist()
    batches, rows = np.subtract(batch_counts(server), before)
    assert rows == sum(len(reply.vectors) for reply in replies)
    # Requests shared batches, or this test tests nothing.
    assert batches < len(replies)


def batch_counts(server):
    """How many batches were computed so far, with how many rows."""
    text = server.http.get("/metrics").text
    names = ("looklisten_batch_rows_count", "looklisten_batch_rows_sum")
    return [float(re.search(rf"^{name} (\S+)$", text, re.MULTILINE)[1]) for name in names]


def test_units_respond_as_their_activations_say(server, clips):
    job = server.client.wait(server.client.units(), every_seconds=0.05)
    reply = UnitsReply.model_validate(job.result)
    # Other tests may have added a file.
    assert 4 <= reply.files == reply.files_of_index
    assert {unit.side for unit in reply.units} == {"vision", "audio"}
    path_of = {clip.name: clip for clip in clips}
    for side in ("vision", "audio"):
        unit = next(unit for unit in reply.units if unit.side == side)
        activations = [moment.activation for moment in unit.moments]
        assert activations == sorted(activations, reverse=True)
        assert len({moment.name for moment in unit.moments}) == len(unit.moments)
        for moment in unit.moments:
            assert np.max(moment.unit_map) == 1
        first = unit.moments[0]
        if side == "audio":
            embedded = server.client.embed(
                path_of[first.name], side=side, layer="pool4", hop_seconds=1
            )
            vector = embedded.vectors[embedded.start_seconds.index(first.seconds)]
            assert vector[unit.number] == pytest.approx(first.activation, abs=1e-3)


def test_a_large_picture_has_the_vector_of_the_library(server, untrained_run, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (700, 900, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "large.jpg")
    reply = server.client.embed(tmp_path / "large.jpg")
    assert reply.side == "vision"
    assert np.array_equal(
        vectors_of(reply), ll.embed(tmp_path / "large.jpg", untrained_run.network).vectors
    )


def test_a_clip_belongs_to_its_own_sound_or_to_another(server, clips, tmp_path):
    own = server.client.score(clips[0])
    assert [pair.sound_seconds for pair in own.pairs] == [0.0, 1.0]
    assert not own.is_calibrated
    pair = server.client.score_pair(clips[0], clips[1])
    assert len(pair.pairs) == 2
    assert 0 < pair.probability < 1
    silence = tmp_path / "silence.wav"
    write_wav(silence, np.zeros(48_000), 48_000)
    silent = server.client.score_pair(clips[0], silence)
    assert silent.probability is None
    assert silent.pairs[0].is_silent


def test_maps_are_those_of_the_library(server, untrained_run, clips):
    reply = server.client.localize(clips[0], every_seconds=0.5)
    wanted = ll.localize(clips[0], untrained_run.network, every_seconds=0.5)
    assert [moment.at_seconds for moment in reply.moments] == [item.at_seconds for item in wanted]
    for moment, item in zip(reply.moments, wanted, strict=True):
        assert np.allclose(moment.frame_map, item.frame_map.values, atol=1e-3)
        assert moment.probability == pytest.approx(item.probability, abs=1e-4)


def test_a_spectrogram_is_loud_where_the_sound_is(server, tmp_path):
    seconds = np.arange(4 * 48_000) / 48_000
    tone = np.sin(2 * np.pi * 1000 * seconds) * (seconds >= 2)
    write_wav(tmp_path / "tone.wav", tone, 48_000)
    with (tmp_path / "tone.wav").open("rb") as file:
        reply = server.http.post("/v1/spectrogram", files={"file": file}).json()
    levels = np.array(reply["levels"])
    assert reply["seconds"] == 4
    half = levels.shape[1] // 2
    assert levels[:, half + 1 :].mean() > 2 * levels[:, : half - 1].mean()
    # 1 kHz lies in the lower half of the frequencies.
    assert levels[:, -1].argmax() < len(levels) / 2


def test_the_index_is_searched_grows_and_gives_its_media(server, clips):
    hits = server.client.search(clips[2], threshold=0).hits
    assert hits[0].name == clips[2].name
    media = server.http.get(f"/v1/media/{hits[0].media}", headers={"range": "bytes=4-7"})
    assert (media.status_code, media.content) == (206, clips[2].read_bytes()[4:8])
    assert "connection" not in media.headers
    thumbnail = server.http.get(f"/v1/thumbnails/{hits[0].thumbnail}")
    assert thumbnail.headers["content-type"] == "image/jpeg"
    before = server.client.index()
    job = server.client.wait(server.client.add(clips[4]), every_seconds=0.05)
    assert (job.state, job.result["indexed"]) == ("done", 1)
    assert server.client.index().sources == before.sources + 1
    assert server.client.search(clips[4], threshold=0).hits[0].name == clips[4].name


def test_a_file_that_cannot_be_indexed_is_not_kept(server, tmp_path):
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(ServerError, match=r"text\.mp4 cannot be opened"):
        server.client.wait(server.client.add(tmp_path / "text.mp4"), every_seconds=0.05)
    assert not list(server.service.uploads.rglob("text.mp4"))


def test_a_tag_is_learned_from_two_moments_and_removed(server, clips):
    hits = server.client.search(clips[1], threshold=0).hits[:2]
    moments = [MarkedMoment(media=hit.media, seconds=hit.seconds) for hit in hits]
    job = server.client.wait(server.client.learn_tags({"knock": moments}), every_seconds=0.05)
    assert job.state == "done"
    assert server.client.tags().sets[0].classes == ["knock"]
    assert server.client.search(tag="knock").hits
    removed = server.http.delete("/v1/tags/own").json()
    assert removed["moments"] > 0
    assert server.client.tags().sets == []


def test_an_overlay_is_a_job_with_a_file(server, clips, tmp_path):
    job = server.client.wait(server.client.overlay(clips[0]), every_seconds=0.05)
    server.client.download(job.file, tmp_path / "overlay.mp4")
    assert b"ftyp" in (tmp_path / "overlay.mp4").read_bytes()[:12]
    assert server.http.delete(f"/v1/jobs/{job.id}").json()["state"] == "done"
    assert server.http.get(f"/v1/jobs/{job.id}").status_code == 404


def test_the_client_imports_neither_torch_nor_numpy():
    program = (
        "import sys, looklisten.client\n"
        "print(sorted({'torch', 'numpy', 'av', 'fastapi'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "[]"


def test_a_server_takes_the_network_of_its_index(server):
    with pytest.raises(ll.LookListenError, match="another network"):
        open_service("untrained:general", server.service.catalog.db, ServeOptions(), "cpu")
    service = open_service(None, server.service.catalog.db, ServeOptions(), "cpu")
    assert service.run.name == NETWORK
    asyncio.run(service.close())


def test_the_image_starts_the_verb_with_options_that_exist():
    root = Path(__file__).parents[1]
    lines = (root / "Dockerfile").read_text(encoding="utf-8").splitlines()
    words = json.loads(next(line for line in lines if line.startswith("CMD"))[4:])
    assert words[0] == "serve"
    fields = {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(ServeOptions)}
    assert {word for word in words if word.startswith("--")} <= fields
    assert "USER looklisten" in lines


def test_the_code_of_the_page_runs(server, clips, tmp_path, monkeypatch):
    page = (Path(__file__).parents[1] / "docs" / "serve.md").read_text(encoding="utf-8")
    page = re.sub(r"<!-- not run: .*? -->\n```.*?```", "", page, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    shutil.copy(clips[0], "clip.mp4")
    Image.new("RGB", (96, 96), (200, 40, 40)).save("frame.jpg")
    write_wav(Path("bark.wav"), np.sin(np.arange(48_000) / 20) / 2, 48_000)
    names = {}
    for language, text in re.findall(r"```(sh|python)\n(.*?)```", page, re.DOTALL):
        text = text.replace("http://127.0.0.1:8080", server.address)
        if language == "python":
            exec(text, names)
            continue
        for line in text.splitlines():
            words = shlex.split(line)
            if words[0] == "curl":
                subprocess.run([*words, "--fail", "--silent"], check=True, capture_output=True)
    names["client"].close()
    assert Path("overlay.mp4").stat().st_size > 1000
    assert Path("map.png").read_bytes().startswith(b"\x89PNG")
