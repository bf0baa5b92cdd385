"""Requests a second of `/v1/embed` on the loopback, with and without batches, beside offline work.

    python benchmarks/serve.py [CHECKPOINT] [--requests 20000] [--rounds 5]

Two servers of the same network run at once: one with batches, one with `--max-batch 1`. Rounds
alternate between them and offline work, so that the machine's other load meets all alike. A client
is a connection that sends one second of sound, waits for its vector and sends the next. Offline
is `looklisten embed` of the same files in one call, and the audio tower alone on windows in memory.
At the end one server answers many requests while its memory is noted.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import wave
from pathlib import Path

import numpy as np
import torch

from looklisten.inference.embedding.files import embed_files
from looklisten.inference.embedding.options import EmbedFilesOptions, EmbedOptions
from looklisten.inference.encoder import encode_rows, encoder_of
from looklisten.model.networks import open_network

CLIENTS = (1, 8, 64)
HOP_SECONDS = 1.0
BOUNDARY = b"looklisten-benchmark"


class Server:
    """`looklisten serve` in a process of its own."""

    def __init__(self, checkpoint: str, *options: str) -> None:
        command = [sys.executable, "-m", "looklisten", "serve", "--checkpoint", checkpoint]
        command += ["--port", "0", "--queue-size", "256", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr
        for line in self.process.stderr:
            if "answers at" in line:
                self.port = int(line.rsplit(":", 1)[1].strip(" /\n"))
                break
        # What the server writes later must not fill the pipe.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def megabytes(self) -> float:
        """Memory of the process itself, without its decoders."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(60)


def wav_bytes(seed: int) -> bytes:
    """A file with one second of noise."""
    samples = np.random.default_rng(seed).normal(0, 3000, 48_000).astype("<i2")
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        with wave.open(file.name, "wb") as written:
            written.setnchannels(1)
            written.setsampwidth(2)
            written.setframerate(48_000)
            written.writeframes(samples.tobytes())
        return Path(file.name).read_bytes()


def request_bytes(sound: bytes) -> bytes:
    """A request with this file, ready to send."""
    head = b'--%s\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n'
    body = head % (BOUNDARY, b"hop_seconds", b"") + b"1.0\r\n"
    body += head % (BOUNDARY, b"file", b'; filename="a.wav"') + sound + b"\r\n"
    body += b"--%s--\r\n" % BOUNDARY
    return (
        b"POST /v1/embed HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        b"Content-Type: multipart/form-data; boundary=%s\r\nContent-Length: %d\r\n\r\n%s"
        % (BOUNDARY, len(body), body)
    )


async def client(port: int, requests: list[bytes], budget: list[int], seconds: list[float]) -> int:
    """Send requests until the budget is spent; returns how many failed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    failed = 0
    while budget[0] > 0:
        budget[0] -= 1
        began = time.perf_counter()
        writer.write(requests[budget[0] % len(requests)])
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        failed += not head.startswith(b"HTTP/1.1 200")
        seconds.append(time.perf_counter() - began)
    writer.close()
    return failed


async def load(port: int, requests: list[bytes], clients: int, count: int) -> dict[str, float]:
    """Requests a second, and quantiles of the time that one takes."""
    budget = [count]
    seconds: list[float] = []
    began = time.perf_counter()
    failed = await asyncio.gather(
        *(client(port, requests, budget, seconds) for _ in range(clients))
    )
    passed = time.perf_counter() - began
    quantiles = statistics.quantiles(seconds, n=100)
    return {
        "per_second": len(seconds) / passed,
        "p50_ms": 1000 * quantiles[49],
        "p95_ms": 1000 * quantiles[94],
        "p99_ms": 1000 * quantiles[98],
        "failed": sum(failed),
    }


def offline_rates(checkpoint: str, sounds: list[bytes], count: int) -> dict[str, float]:
    """Files a second of `embed`, and windows a second of the audio tower alone."""
    run = open_network(checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder, "sounds")
        inputs.mkdir()
        for number in range(count):
            # One byte differs, so that no file is a copy of another one.
            data = bytearray(sounds[number % len(sounds)])
            data[-2:] = number.to_bytes(2, "little")
            (inputs / f"{number:05d}.wav").write_bytes(data)
        options = EmbedFilesOptions(vectors=EmbedOptions(hop_seconds=HOP_SECONDS))
        began = time.perf_counter()
        embed_files([inputs], run.network, Path(folder, "vectors"), options)
        files_per_second = count / (time.perf_counter() - began)
    encoder = encoder_of(run.network)
    rows = torch.randn(128, 48_000) / 10
    encode_rows(encoder, "audio", encoder.layers["audio"][0], rows[:32], 32)
    began = time.perf_counter()
    encode_rows(encoder, "audio", encoder.layers["audio"][0], rows, 32)
    return {
        "files_per_second": files_per_second,
        "windows_per_second": len(rows) / (time.perf_counter() - began),
    }


def memory(server: Server, requests: list[bytes], count: int) -> list[float]:
    """Memory after each hundredth of `count` requests of 64 clients."""
    megabytes = []
    for _ in range(100):
        result = asyncio.run(load(server.port, requests, 64, max(count // 100, 64)))
        assert not result["failed"]
        megabytes.append(server.megabytes())
    return megabytes


def median(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(row[name] for row in rows), 2) for name in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", nargs="?", default="untrained:tiny")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--per-round", type=int, default=256)
    options = parser.parse_args()
    sounds = [wav_bytes(seed) for seed in range(16)]
    requests = [request_bytes(sound) for sound in sounds]
    servers = {
        "batches": Server(options.checkpoint),
        "one by one": Server(options.checkpoint, "--max-batch", "1"),
    }
    results: dict[str, list[dict[str, float]]] = {}
    try:
        for server in servers.values():
            asyncio.run(load(server.port, requests, 8, 64))
        for _ in range(options.rounds):
            for clients in CLIENTS:
                count = options.per_round if clients > 1 else options.per_round // 4
                for name, server in servers.items():
                    row = asyncio.run(load(server.port, requests, clients, count))
                    results.setdefault(f"{name}, {clients} clients", []).append(row)
            row = offline_rates(options.checkpoint, sounds, options.per_round)
            results.setdefault("offline", []).append(row)
        table = {name: median(rows) for name, rows in results.items()}
        print(json.dumps(table, indent=1))
        if options.requests:
            used = memory(servers["batches"], requests, options.requests)
            quarters = [statistics.mean(used[start : start + 25]) for start in range(0, 100, 25)]
            print("MB in each quarter of the requests:", [round(value, 1) for value in quarters])
            print(f"last over second: {quarters[3] / quarters[1]:.4f}")
    finally:
        codes = [server.stop() for server in servers.values()]
    print("exit codes", codes, "|", platform.processor() or platform.machine(), os.cpu_count())


if __name__ == "__main__":
    main()
