"""Windows and pictures a second of one network, each way of embedding taking its turn in one run.

    python benchmarks/embed.py [--config l3] [--checkpoint RUN] [--seconds 6] [--hop 0.1] [--repeats
    3] [--threads N] [--json]

Sound of chance (tones that come and go over noise) at a hop of 0.1 s: window by window in float32
and bfloat16, dense in both, and by onnxruntime from the file that `looklisten export --format onnx`
writes. Rates are medians over the turns; the ratio is to float32 window by window, turn by turn.
The cosine is the lowest of any window to float32 window by window at the same start. OpenL3's own
networks, beside OpenL3 itself, are in benchmarks/openl3.py.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import looklisten as ll
from looklisten.config import Side
from looklisten.inference.embedding.options import Precision
from looklisten.interop.onnx import write_onnx
from looklisten.model.l3net import L3Net
from looklisten.system.processes import cpu_count

RATE_HZ = 48_000


def made_sound(seconds: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    tones = sum(
        np.sin(2 * np.pi * hz * t) * np.clip(np.sin(2 * np.pi * rate * t + k), 0, 1)
        for k, (hz, rate) in enumerate(
            zip(rng.uniform(100, 6000, 8), rng.uniform(0.3, 3, 8), strict=True)
        )
    )
    return (0.1 * tones + 0.02 * rng.standard_normal(len(t))).astype(np.float32)


def with_onnx(
    model: L3Net, side: Side, batches: list[np.ndarray], folder: Path
) -> Callable[[], np.ndarray]:
    import onnxruntime

    write_onnx(model, side, "pool4", folder / f"{side}.onnx")
    session = onnxruntime.InferenceSession(
        folder / f"{side}.onnx", providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda: np.concatenate([session.run(None, {name: batch})[0] for batch in batches])


def lowest_cosine(vectors: np.ndarray, exact: np.ndarray) -> float:
    return float(
        (
            (vectors * exact).sum(1)
            / np.linalg.norm(vectors, axis=1)
            / np.linalg.norm(exact, axis=1)
        ).min()
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="l3")
    parser.add_argument("--checkpoint")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--hop", type=float, default=0.1)
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=cpu_count())
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = (
        ll.load(options.checkpoint)
        if options.checkpoint
        else L3Net(ll.Config.load(options.config).model).eval()
    )
    sound = made_sound(options.seconds)
    side, cut = (
        model.config.resize_pixels,
        (model.config.resize_pixels - model.config.crop_pixels) // 2,
    )
    pictures = np.random.default_rng(0).integers(
        0, 256, (options.pictures, side, side, 3), np.uint8
    )

    def heard(precision: Precision, dense: bool) -> ll.Embeddings:
        return ll.embed(
            sound,
            model,
            hop_seconds=options.hop,
            dense=dense,
            sample_rate_hz=RATE_HZ,
            precision=precision,
        )

    def exact_at(starts: np.ndarray) -> np.ndarray:
        """Vectors of the windows that begin there, one by one in float32."""
        whole = np.concatenate([sound, np.zeros(RATE_HZ, np.float32)])
        windows = torch.from_numpy(
            np.stack([whole[s : s + RATE_HZ] for s in np.round(starts * RATE_HZ).astype(int)])
        )
        with torch.inference_mode():
            return np.concatenate(
                [model.listen(part).vector.float().numpy() for part in windows.split(4)]
            )

    starts = heard("float32", False).start_seconds
    windows = np.stack(
        [
            np.pad(sound, (0, RATE_HZ))[s : s + RATE_HZ]
            for s in np.round(starts * RATE_HZ).astype(int)
        ]
    )
    frames = np.ascontiguousarray(
        pictures[:, cut : side - cut, cut : side - cut].transpose(0, 3, 1, 2)
    )
    with tempfile.TemporaryDirectory() as scratch:
        audio_onnx = with_onnx(
            model, "audio", np.array_split(windows, max(len(windows) // 8, 1)), Path(scratch)
        )
        vision_onnx = with_onnx(
            model, "vision", np.array_split(frames, max(len(frames) // 8, 1)), Path(scratch)
        )
        ways: dict[str, tuple[str, Callable[[], object]]] = {
            "sound, float32": ("sound", lambda: heard("float32", False)),
            "sound, bfloat16": ("sound", lambda: heard("bfloat16", False)),
            "sound, dense, float32": ("sound", lambda: heard("float32", True)),
            "sound, dense, bfloat16": ("sound", lambda: heard("bfloat16", True)),
            "sound, onnxruntime": ("sound", audio_onnx),
            "pictures, float32": ("pictures", lambda: ll.embed(pictures, model)),
            "pictures, bfloat16": (
                "pictures",
                lambda: ll.embed(pictures, model, precision="bfloat16"),
            ),
            "pictures, onnxruntime": ("pictures", vision_onnx),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        found: dict[str, object] = {}
        for turn in range(options.repeats + 1):
            for name, (_, work) in ways.items():
                began = time.perf_counter()
                found[name] = work()
                if turn:  # the first is for warming up
                    seconds[name].append(time.perf_counter() - began)
    pictures_exact = found["pictures, float32"].vectors  # type: ignore[attr-defined]
    rows = {}
    for name, (kind, _) in ways.items():
        result = found[name]
        vectors = result if isinstance(result, np.ndarray) else result.vectors  # type: ignore[attr-defined]
        if kind == "pictures":
            exact = pictures_exact
        else:
            exact = exact_at(starts if isinstance(result, np.ndarray) else result.start_seconds)  # type: ignore[attr-defined]
        ratios = [a / b for a, b in zip(seconds[f"{kind}, float32"], seconds[name], strict=True)]
        middle = statistics.median(seconds[name])
        rows[name] = {
            "a_second": len(vectors) / middle,
            "times_real_time": options.seconds / middle if kind == "sound" else None,
            "ratio": statistics.median(ratios),
            "ratio_lowest": min(ratios),
            "ratio_highest": max(ratios),
            "lowest_cosine": lowest_cosine(vectors, exact),
        }
    if options.json:
        print(
            json.dumps(
                {
                    "config": options.config,
                    "threads": options.threads,
                    "load": os.getloadavg()[0],
                    "rows": rows,
                }
            )
        )
        return
    load = os.getloadavg()[0]
    print(
        f"{options.threads} threads, {options.seconds:g} s of sound every {options.hop:g} s, "
        f"{len(pictures)} images, load {load:.1f}"
    )
    print("| way | a second | times real time | ratio (lowest – highest) | lowest cosine |")
    print("| --- | --- | --- | --- | --- |")
    for name, row in rows.items():
        real = f"{row['times_real_time']:.2f}" if row["times_real_time"] else ""
        spread = f"{row['ratio']:.2f} ({row['ratio_lowest']:.2f} – {row['ratio_highest']:.2f})"
        print(
            f"| {name} | {row['a_second']:.2f} | {real} | {spread} | {row['lowest_cosine']:.5f} |"
        )


if __name__ == "__main__":
    main()
