r"""Everything about looklisten that needs a GPU to measure, in one command.

That is: the GPU tests, the speed of a training step, and two short trainings.

    python benchmarks/gpu.py OUT [--minutes 9] [--size full|toy] [--device auto]

1. Makes synthetic videos and their shards, with all cores. Meanwhile the GPU tests run
   (tests/test_gpu.py; without a GPU they are skipped).
2. Measures a training step of `l3` at batch 256, from a naive step to ours (see step_time.py), and
   how its time divides among kernels. Computes its share of the GPU's matrix rate, and the hours
   of the paper's run: 234,375 steps of 256 videos.
3. Trains the full-size `l3` and `general`, the recipe with the highest pointing accuracy, for the
   minutes that are left. Measures each on held-out videos.

OUT gets figures.json, which is written anew after each stage, and each network as parts of a tar
archive under 16 MiB. `cat OUT/l3.tar.* | tar x` gives the folder `l3`, which `ll.load` opens.
`--size toy` does the same with tiny sizes on a CPU; tests/test_benchmarks.py runs it.

The machine needs PyTorch but no network. On another machine, collect wheels for its Python (here
3.12 on Linux) and carry them:

    python -m pip wheel --no-deps -w wheels .
    python -m pip download --no-deps --only-binary=:all: -c constraints.txt \
        --python-version 3.12 --implementation cp --platform manylinux_2_28_x86_64 \
        --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 -d wheels \
        'av<19' soxr simplejpeg tyro docstring-parser typeguard tomlkit pydantic pydantic-core \
        annotated-types typing-inspection typing-extensions

and there:

    python3 -m pip install --no-index --no-deps --target site wheels/*.whl
    PYTHONPATH=site python3 benchmarks/gpu.py OUT

The tests use PyAV 18. A machine with PyTorch often lacks the packages above. It also needs numpy,
pyarrow, safetensors, rich, scikit-learn, joblib, matplotlib, jinja2, pillow, jaxtyping,
tensorboard, fsspec and lazy_loader, and for the tests pytest, pytest-timeout and hypothesis.
"""

import argparse
import io
import json
import logging
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from step_time import breakdown, print_step_table, product_step, seconds_of, step_result

import looklisten as ll
from looklisten.app.demo_time import noise_batch
from looklisten.config import Config
from looklisten.evaluation.localization.evaluate import pointing
from looklisten.media.synth.options import WorldOptions
from looklisten.media.synth.synth import synth
from looklisten.system.devices import choose_device
from looklisten.system.environment import environment
from looklisten.system.processes import keep_freed_memory
from looklisten.training.meter import PAIRS_PER_VIDEO

PAPER_RECIPE = "l3"
POINTING_RECIPE = "general"
"""The recipe with the highest pointing accuracy, `pointing` in figures.json (RESULTS.md)."""
PAPER_SHARE = 0.6
"""The share of the minutes left after stage 2 that the full-size network gets."""
TRAINING_SHARE = 0.7
"""The share of the time of one network in which it trains; the rest is for measuring it."""
PART_BYTES = 15 * 2**20
"""The largest size of a part of an archive."""
PEAK_BFLOAT16_FLOPS = {"H100 80GB": 989e12, "H200": 989e12, "A100": 312e12}
"""Operations a second of dense matrix products, from the vendor's data sheets.

The keys are parts of the device's name.
"""
TESTS = Path(__file__).parents[1] / "tests" / "test_gpu.py"


@dataclass(frozen=True)
class Sizes:
    """How large everything is."""

    batch: int = 256
    repeats: int = 5
    compiles: bool = True
    videos: int = 4000
    video_seconds: float = 3.0
    side_pixels: int = 256
    test_share: float = 0.25
    evaluated_pairs: int = 4000
    matmul: int | None = None
    """Rows of the matrices of the matrix product; by default those of step_time.py."""
    shrinks: bool = False
    """Whether networks are made tiny."""

    def config(self, recipe: str) -> Config:
        """The settings of a recipe at this size."""
        config = Config.load(recipe)
        if not self.shrinks:
            return config
        config = config.changed("model", widths=(4, 8, 8, 16), resize_pixels=64, crop_pixels=48)
        return config.changed("train", batch_size=self.batch)


SIZES = {
    "full": Sizes(),
    "toy": Sizes(8, 1, False, 16, 1.0, 64, 0.5, 40, matmul=256, shrinks=True),
}


class Figures:
    """What was measured, in OUT/figures.json; each stage adds to it."""

    def __init__(self, out: Path) -> None:
        self._path = out / "figures.json"
        self._values: dict[str, Any] = {}

    def add(self, **values: Any) -> None:
        """Add values and write the file, so that an interrupted command has its figures."""
        self._values |= values
        self._path.write_text(json.dumps(self._values, indent=1) + "\n", encoding="utf-8")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage. An error ends the stage, not the command."""
        print(f"== {name}", flush=True)
        began = time.perf_counter()
        try:
            yield
        except Exception as error:
            # The stages after it can still give their figures.
            logging.exception("the stage %s failed", name)
            self.add(**{f"{name}_error": repr(error)})
        self.add(**{f"{name}_seconds": round(time.perf_counter() - began, 1)})


def make_world(folder: Path, sizes: Sizes) -> None:
    """Videos with boxes, and their shards: `folder`/shards."""
    options = WorldOptions(
        videos=sizes.videos,
        seconds=sizes.video_seconds,
        side_pixels=sizes.side_pixels,
        test_share=sizes.test_share,
        # Fewer than by default, to save time: `prepare` stores five a second.
        frames_per_second=10,
    )
    world = folder / "world"
    synth(world, options)
    ll.prepare([str(world / "labels.csv")], folder / "shards", boxes=world / "boxes.csv")


def run_tests() -> dict[str, Any]:
    """The outcome of the GPU tests, in a process of their own."""
    # Without the options of pyproject.toml: torch.compile fails under the hook that checks shapes,
    # and a new warning of a GPU is no failure.
    options = ["-q", "-o", "addopts=", "-o", "filterwarnings=default", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, str(TESTS)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=TESTS.parents[1])
    print(done.stdout, done.stderr, flush=True)
    return {"exit_code": done.returncode, "output": done.stdout[-4000:]}


def peak_flops(device: str) -> float | None:
    """The vendor's bfloat16 operations a second of a GPU; None for an unknown device."""
    if not device.startswith("cuda"):
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_BFLOAT16_FLOPS.items() if part in name), None)


def measure_step(sizes: Sizes, device: str) -> dict[str, Any]:
    """The step table, its profile, and the hours of the paper's run."""
    config = sizes.config(PAPER_RECIPE).changed("train", batch_size=sizes.batch, accumulate=1)
    result = step_result(config, device, sizes.repeats, sizes.compiles, sizes.matmul)
    print_step_table(result)
    paper = Config.load(PAPER_RECIPE).train
    videos = paper.steps * paper.batch_size
    result["paper_run_videos"] = videos
    result["paper_run_pairs"] = PAIRS_PER_VIDEO * videos
    result["paper_run_hours"] = videos / result["videos_per_second"] / 3600
    print(
        f"the run of the paper, {videos:,} videos, would take {result['paper_run_hours']:.1f} h "
        "at this rate"
    )
    if peak := peak_flops(device):
        # Model FLOPs utilization.
        result["mfu"] = result["flops_per_video"] * result["videos_per_second"] / peak
        print(f"{result['mfu']:.2f} of the {peak / 1e12:.0f} TFLOP/s of the data sheet")
    result["profile"] = breakdown(config, noise_batch(config, sizes.batch), device)
    print(result["profile"])
    return result


def steps_for(config: Config, device: str, seconds: float) -> int:
    """How many steps fit into `seconds`; at most those of the recipe."""
    batch = noise_batch(config, config.train.batch_size)
    step, _ = product_step(config, batch, device, compiled=False)
    # The first step chooses kernels.
    step()
    step_seconds = min(seconds_of(step, device) for _ in range(3))
    return max(2, min(config.train.steps, int(seconds / step_seconds)))


@contextmanager
def stop_after(seconds: float) -> Iterator[None]:
    """End a training inside the block after `seconds`: by a signal, so that it saves first."""
    # The signal may come just before or just after the training. By default it ends the process.
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    stopper = threading.Timer(seconds, os.kill, [os.getpid(), signal.SIGUSR1])
    stopper.start()
    try:
        yield
    finally:
        stopper.cancel()
        stopper.join()
        signal.signal(signal.SIGUSR1, before)


def train_and_measure(
    recipe: str, shards: Path, work: Path, sizes: Sizes, device: str, seconds: float
) -> dict[str, Any]:
    """Train a recipe for about `seconds` and measure it on held-out videos."""
    training_seconds = TRAINING_SHARE * seconds
    config = sizes.config(recipe)
    steps = steps_for(config, device, training_seconds)
    config = config.changed(
        "train", steps=steps, evaluate_every=steps, checkpoint_every=steps, probe_every=0
    )
    # The loader may be slower than the step, so the estimate alone is not enough.
    with stop_after(training_seconds):
        trained = ll.train(shards, config, work / recipe, device)
    run = ll.open(work / recipe, device)
    held_out = ll.evaluate(run, shards, pairs=sizes.evaluated_pairs)
    result = {
        "steps": trained.step,
        "stopped_by": trained.stopped_by,
        "batch": config.train.batch_size,
        "loss": trained.loss,
        "videos_per_second": trained.videos_per_second,
        "pairs_per_second": trained.pairs_per_second,
        "data_wait": trained.data_wait,
        "correspondence": held_out.as_dict(),
        "pointing": pointing(run, shards).as_dict(),
    }
    print(json.dumps(result), flush=True)
    return result


def write_parts(folder: Path, out: Path, part_bytes: int = PART_BYTES) -> list[str]:
    """`folder` as a tar archive in `out`, in parts of at most `part_bytes`; their names."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(folder, folder.name)
    data = archive.getvalue()
    names = []
    for number, start in enumerate(range(0, len(data), part_bytes)):
        name = f"{folder.name}.tar.{number:02d}"
        (out / name).write_bytes(data[start : start + part_bytes])
        names.append(name)
    return names


def run(out: Path, minutes: float, sizes: Sizes, device_name: str) -> None:
    """All stages; the trainings share what is left of `minutes`."""
    ends = time.monotonic() + 60 * minutes
    device = choose_device(device_name).value
    out.mkdir(parents=True, exist_ok=True)
    figures = Figures(out)
    figures.add(environment=environment(), minutes=minutes)
    if device.startswith("cuda"):
        figures.add(gpu=torch.cuda.get_device_name(device))
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        with figures.stage("world_and_tests"), ThreadPoolExecutor(1) as pool:
            outcome = pool.submit(run_tests)
            make_world(work, sizes)
            figures.add(tests=outcome.result())
        with figures.stage("step"):
            figures.add(step=measure_step(sizes, device))
        for recipe, share in ((PAPER_RECIPE, PAPER_SHARE), (POINTING_RECIPE, 1.0)):
            with figures.stage(recipe):
                seconds = share * max(ends - time.monotonic(), 1.0)
                measured = train_and_measure(recipe, work / "shards", work, sizes, device, seconds)
                figures.add(**{recipe: measured})
                folder = ll.save_pretrained(str(work / recipe), work / "published" / recipe)
                figures.add(**{f"{recipe}_parts": write_parts(folder, out)})
    print(f"figures and checkpoints are in {out}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=9.0, help="for all stages together")
    parser.add_argument("--size", choices=list(SIZES), default="full")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    keep_freed_memory()
    run(given.out, given.minutes, SIZES[given.size], given.device)


if __name__ == "__main__":
    main()
