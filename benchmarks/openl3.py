"""Windows and pictures a second: OpenL3 itself, and its networks here in float32 and bfloat16, with
the same weights.

    python benchmarks/openl3.py WEIGHTS [--openl3 PYTHON] [--threads N] [--repeats 5] [--windows 32]
    [--pictures 16] [--precisions float32 bfloat16] [--json]

WEIGHTS is a folder with openl3_audio_mel256_env.h5 and openl3_image_mel256_env.h5. `--openl3` is
the Python of an environment of its own in which `import openl3` works (TensorFlow 2.15); it is
started once, told the same sounds and pictures, and takes turns with ours. Rates are medians over
the turns, by wall time and by processor time; ratios are medians of each turn's. On a shared
machine trust processor time with `--threads 1`, since waiting threads spin. Cosines are the lowest
of any row, to OpenL3 or else to float32.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from looklisten.interop import openl3
from looklisten.system.processes import cpu_count

BATCH = 16

PEER = """
import json, sys, time
import numpy as np, tensorflow as tf, openl3
from openl3 import models
sound, images = np.load(sys.argv[1]), np.load(sys.argv[2])
weights, batch = sys.argv[3], int(sys.argv[4])
tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[5]))
tf.config.threading.set_inter_op_parallelism_threads(1)
audio_net = models.load_audio_embedding_model_from_path(
    weights + "/openl3_audio_mel256_env.h5", "mel256", 512
)
image_net = models.load_image_embedding_model_from_path(
    weights + "/openl3_image_mel256_env.h5", 512
)
options = {"batch_size": batch, "verbose": False}


def embed_audio():
    return openl3.get_audio_embedding(
        sound, 48000, model=audio_net, hop_size=0.1, center=False, **options
    )[0]


def embed_images():
    return openl3.get_image_embedding(images, model=image_net, **options)


work = {"audio": embed_audio, "image": embed_images}
for warm_up in work.values():
    warm_up()
print("ready", flush=True)
for line in sys.stdin:
    side, out = line.split()
    wall, own = time.perf_counter(), time.process_time()
    vectors = work[side]()
    wall, own = time.perf_counter() - wall, time.process_time() - own
    np.save(out, vectors)
    print(json.dumps([wall, own]), flush=True)
"""


class Peer:
    """OpenL3 in a process of its own, which waits for its turn."""

    def __init__(
        self, python: str, sounds: Path, pictures: Path, weights: Path, threads: int
    ) -> None:
        command = [
            python,
            "-W",
            "ignore",
            "-c",
            PEER,
            str(sounds),
            str(pictures),
            str(weights),
            str(BATCH),
            str(threads),
        ]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        assert self.process.stdin and self.process.stdout
        self._ask, self._answers = self.process.stdin, self.process.stdout
        while self._answers.readline().strip() != "ready":
            if self.process.poll() is not None:
                sys.exit(f"{python} cannot run OpenL3")

    def __call__(self, side: str, folder: Path) -> tuple[np.ndarray, float, float]:
        out = folder / "peer.npy"
        self._ask.write(f"{side} {out}\n")
        self._ask.flush()
        wall, own = json.loads(self._answers.readline())
        return np.load(out), wall, own


def turn(call: Callable[[], np.ndarray]) -> tuple[np.ndarray, float, float]:
    wall, own = time.perf_counter(), time.process_time()
    vectors = call()
    return vectors, time.perf_counter() - wall, time.process_time() - own


def lowest_cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("weights", type=Path)
    options.add_argument("--openl3", metavar="PYTHON")
    options.add_argument("--threads", type=int, default=cpu_count())
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--windows", type=int, default=32)
    options.add_argument("--pictures", type=int, default=16)
    options.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    options.add_argument("--json", action="store_true")
    args = options.parse_args()

    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(0)
    sound = rng.normal(0, 0.1, 48_000 + 4_800 * (args.windows - 1)).astype(np.float32)
    pictures = rng.integers(0, 256, (args.pictures, 224, 224, 3), np.uint8)
    rows: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        np.save(folder / "sound.npy", sound)
        np.save(folder / "pictures.npy", pictures)
        peer = (
            Peer(
                args.openl3,
                folder / "sound.npy",
                folder / "pictures.npy",
                args.weights,
                args.threads,
            )
            if args.openl3
            else None
        )
        ours = {}
        for precision in args.precisions:
            hears = openl3.models.load_audio_embedding_model_from_path(
                args.weights / "openl3_audio_mel256_env.h5", "mel256", 512, precision=precision
            )
            sees = openl3.models.load_image_embedding_model_from_path(
                args.weights / "openl3_image_mel256_env.h5", 512, precision=precision
            )
            ours["audio", precision] = lambda net=hears: openl3.get_audio_embedding(
                sound, 48_000, model=net, hop_size=0.1, center=False, batch_size=BATCH
            )[0]
            ours["image", precision] = lambda net=sees: openl3.get_image_embedding(
                pictures, model=net, batch_size=BATCH
            )
        for call in ours.values():
            call()
        for _ in range(args.repeats):
            for side, count in (("audio", args.windows), ("image", args.pictures)):
                exact = None
                for name, work in (
                    *([("OpenL3", lambda side=side: peer(side, folder))] if peer else []),
                    *(
                        (precision, lambda key=(side, precision): turn(ours[key]))
                        for precision in args.precisions
                    ),
                ):
                    vectors, wall, own = work()
                    exact = vectors if exact is None else exact
                    row = rows[f"{side} {name}"]
                    row["wall"].append(count / wall)
                    row["processor"].append(count / own)
                    row["cosine"].append(lowest_cosine(vectors, exact))
    table = {
        name: {what: statistics.median(values) for what, values in row.items()}
        for name, row in rows.items()
    }
    for name, row in rows.items():
        base = rows[f"{name.split()[0]} {'OpenL3' if args.openl3 else 'float32'}"]
        table[name] |= {
            f"ratio {what}": statistics.median(
                a / b for a, b in zip(row[what], base[what], strict=True)
            )
            for what in ("wall", "processor")
        }
    if args.json:
        print(
            json.dumps(
                {
                    "cores": cpu_count(),
                    "threads": args.threads,
                    "load": os.getloadavg()[0],
                    "rows": table,
                }
            )
        )
        return
    print(
        f"{args.threads} threads; a second of wall time, of processor time | their ratios | "
        "lowest cosine"
    )
    for name, figures in table.items():
        cells = [figures[what] for what in ("wall", "processor", "ratio wall", "ratio processor")]
        print(f"{name:16s}", *(f"{cell:7.2f}" for cell in cells), f"{figures['cosine']:.6f}")


if __name__ == "__main__":
    main()
