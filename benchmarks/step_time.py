"""What each thing is worth in a training step, from a naive one to ours, and how far ours is from
the machine's limit.

    python benchmarks/step_time.py [--config l3] [--batch 8] [--repeats 5] [--no-compile]
    [--profile] [--json] [--loader SHARDS] [--against TREE]

Rows, each adding one thing to the one above: naive (float32, NCHW, both towers run anew for each
positive and each negative pair, the spectrogram made on the CPU by what loads the data, eager,
plain Adam); each tower once a row and pairs formed on the vectors; bfloat16; channels-last; the
front end on the device; fused Adam, which is the product's own step; torch.compile. On a CPU the
loader's spectrogram and the device's are made by the same cores, so that row says little there.

Frames and sounds are noise of the right size and lie in memory; `--loader SHARDS` measures beside
it how fast real ones come. The rows take turns, and so does the machine's own matrix product; rates
are medians over the turns, ratios medians of each turn's. A batch of B videos makes B positive and
B negative pairs, so pairs/s are two times videos/s.

`--against TREE` measures the product's step of another source tree instead, such as a checkout of
an earlier commit. Two processes, one for each tree, take turns of five steps, of which the fastest
counts. On a CPU it is the time of the processor, so take one thread (OMP_NUM_THREADS=1). Both begin
with the same weights and the same batch, so their first losses show whether they compute the same.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from looklisten.app.demo_time import noise_batch
from looklisten.config import Config
from looklisten.data.pairs import PairBatch
from looklisten.data.shards import Shards
from looklisten.model.fusions import CORRESPOND
from looklisten.model.l3net import L3Net
from looklisten.model.objectives.avc import AvcObjective
from looklisten.system.devices import choose_device, choose_precision, to_device
from looklisten.system.processes import cpu_count, keep_freed_memory
from looklisten.training.augmentation import tower_inputs
from looklisten.training.batches import training_stream
from looklisten.training.learner import Learner
from looklisten.training.meter import PAIRS_PER_VIDEO

Step = Callable[[], float]


def plain_step(
    config: Config,
    batch: PairBatch,
    device: str,
    anew: bool,
    half: bool,
    channels_last: bool,
    spectrogram_on_device: bool,
) -> Step:
    """A step as a first version might have it."""
    torch.manual_seed(0)
    network = L3Net(config.model).train()
    loader_front_end = network.front_end if spectrogram_on_device else L3Net(config.model).front_end
    if channels_last:
        to_device(network, device)
    else:
        network.to(device)
    optimizer = torch.optim.Adam(
        network.parameters(),
        config.train.learning_rate,
        weight_decay=config.train.weight_decay,
        foreach=False,
    )
    objective = AvcObjective(config.changed("train", negatives="roll"), network.features)
    batch = replace(batch, pairing=batch.pairing.to(torch.device(device)))
    partners = batch.pairing.partners
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def step() -> float:
        # As a loader would hand them over: the augmentation is the same everywhere.
        frames, waveforms = tower_inputs(batch, config, 1, device)
        frames = frames.contiguous(memory_format=layout)
        sounds = (
            network.front_end(waveforms)
            if spectrogram_on_device
            else loader_front_end(waveforms.cpu()).to(device)
        )
        optimizer.zero_grad()
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=half):
            if anew:
                twice, paired = torch.cat([frames, frames]), torch.cat([sounds, sounds[partners]])
                logits = network.fusion(network.vision(twice).vector, network.audio(paired).vector)
                truth = torch.tensor([CORRESPOND, 1 - CORRESPOND], device=device).repeat_interleave(
                    len(frames)
                )
                loss = functional.cross_entropy(logits.float(), truth)
            else:
                vision, audio = network.vision(frames).vector, network.audio(sounds).vector
                loss = objective(network.fusion, vision, audio, batch).loss
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def product_step(
    config: Config, batch: PairBatch, device: str, compiled: bool
) -> tuple[Step, Learner]:
    """The step that `looklisten train` takes."""
    learner = Learner(config.changed("train", compile="on" if compiled else "off"), device)
    return lambda: float(learner.step([batch], 1, config.train.learning_rate).loss), learner


def steps_of(
    config: Config, batch: PairBatch, device: str, half: bool, compiles: bool
) -> dict[str, Step]:
    def plain(
        anew: bool, half: bool = False, channels_last: bool = False, on_device: bool = False
    ) -> Step:
        return plain_step(config, batch, device, anew, half, channels_last, on_device)

    steps = {"naive": plain(anew=True), "each tower once": plain(anew=False)}
    if half:
        steps["bfloat16"] = plain(False, half=True)
    steps["channels-last"] = plain(False, half, channels_last=True)
    steps["front end on the device"] = plain(False, half, True, on_device=True)
    steps["fused Adam: ours"] = product_step(config, batch, device, compiled=False)[0]
    if compiles:
        steps["torch.compile"] = product_step(config, batch, device, compiled=True)[0]
    return steps


def seconds_of(work: Callable[[], object], device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - began


def matmul(device: str, half: bool, size: int | None = None) -> tuple[Callable[[], object], float]:
    """A square matrix product in the step's precision, and its floating-point operations.

    `size`: rows of the matrices; by default so many that the device is busy.
    """
    size = size or (8192 if device.startswith("cuda") else 4096)
    a, b = (
        torch.randn(size, size, device=device, dtype=torch.bfloat16 if half else torch.float32)
        for _ in range(2)
    )
    return lambda: a @ b, 2.0 * size**3


def flops_a_video(config: Config, device: str) -> float:
    """Floating-point operations of convolutions and matrix products, forward and backward, one
    frame and one sound.
    """
    few = config.changed("train", batch_size=2, accumulate=1, compile="off")
    learner = Learner(few, device)
    with FlopCounterMode(display=False) as counter:
        learner.step([noise_batch(few, 2)], 1, 1e-4)
    return counter.get_total_flops() / 2


def first_steps(steps: dict[str, Step], device: str) -> dict[str, float]:
    """The seconds of the first step of each row, in which kernels are chosen and made.

    Rows that do not fit into the memory of the device are left out.
    """
    seconds = {}
    for name, step in steps.items():
        try:
            seconds[name] = seconds_of(step, device)
        except torch.OutOfMemoryError:
            print(f"{name}: does not fit into the memory of {device}", file=sys.stderr)
            torch.cuda.empty_cache()
    return seconds


def measured(
    steps: dict[str, Step],
    device: str,
    half: bool,
    batch: int,
    repeats: int,
    matmul_size: int | None = None,
) -> tuple[list[dict[str, Any]], float]:
    """A row for each step and the machine's matrix product in operations a second."""
    product, operations = matmul(device, half, matmul_size)
    first = first_steps(steps, device)
    seconds_of(product, device)
    turns: dict[str, list[float]] = defaultdict(list)
    products = []
    for _ in range(repeats):
        for name in first:
            turns[name].append(seconds_of(steps[name], device))
        products.append(min(seconds_of(product, device) for _ in range(3)))
    rows: list[dict[str, Any]] = []
    # The naive step needs four times the memory of ours, which a GPU may not have.
    slowest = turns[next(iter(first))]
    for name, times in turns.items():
        ratios = [naive / own for naive, own in zip(slowest, times, strict=True)]
        rows.append(
            {
                "step": name,
                "videos_per_second": batch / statistics.median(times),
                "pairs_per_second": PAIRS_PER_VIDEO * batch / statistics.median(times),
                "ratio": statistics.median(ratios),
                "lowest": min(ratios),
                "highest": max(ratios),
                "first_step_seconds": first[name],
            }
        )
    return rows, operations / statistics.median(products)


def step_result(
    config: Config, device: str, repeats: int, compiles: bool, matmul_size: int | None = None
) -> dict[str, Any]:
    """All rows of the table, the fastest step, and its share of the machine's matrix product."""
    size = config.train.batch_size
    half = choose_precision(device, config.train.precision).value == "bfloat16"
    flops = flops_a_video(config, device)
    steps = steps_of(config, noise_batch(config, size), device, half, compiles)
    rows, matmul_rate = measured(steps, device, half, size, repeats, matmul_size)
    best = max(rows[-2:], key=lambda row: row["videos_per_second"])
    return {
        "compared_with": rows[0]["step"],
        "naive_videos_per_second": rows[0]["videos_per_second"],
        "naive_pairs_per_second": rows[0]["pairs_per_second"],
        "videos_per_second": best["videos_per_second"],
        "pairs_per_second": best["pairs_per_second"],
        "ratio": best["ratio"],
        "matmul_fraction": flops * float(best["videos_per_second"]) / matmul_rate,
        "flops_per_video": flops,
        "matmul_flops_per_second": matmul_rate,
        "batch": size,
        "precision": "bfloat16" if half else "float32",
        "rows": rows,
    }


def print_step_table(result: dict[str, Any]) -> None:
    """The rows and the share of the matrix rate, for people."""
    line = (
        "{step:24}  {videos_per_second:9.2f} videos/s  {pairs_per_second:9.2f} pairs/s  "
        "{ratio:6.2f} x  ({lowest:.2f} to {highest:.2f})"
    )
    for row in result["rows"]:
        print(line.format(**row))
    print(
        f"{result['flops_per_video'] / 1e9:.1f} GFLOP a video; matrix product "
        f"{result['matmul_flops_per_second'] / 1e9:.0f} GFLOP/s; "
        f"training reaches {result['matmul_fraction']:.2f} of it"
    )


KINDS = {
    "convolution": "convolution",
    "batch-norm": "batch_norm",
    "ReLU": ("relu", "threshold"),
    "pooling": ("pool", "amax"),
    "Adam": "adam",
}


def breakdown(config: Config, batch: PairBatch, device: str) -> str:
    """Where the product's step (not compiled) spends its time, by kind and by layer."""
    step, _ = product_step(config, batch, device, compiled=False)
    step()
    activities = [
        ProfilerActivity.CPU,
        *([ProfilerActivity.CUDA] if device.startswith("cuda") else []),
    ]
    with profile(activities=activities, record_shapes=True) as watch:
        step()
    key = "self_device_time_total" if device.startswith("cuda") else "self_cpu_time_total"
    kinds: dict[str, float] = defaultdict(float)
    for event in watch.key_averages():
        names = (
            (kind, words if isinstance(words, tuple) else (words,)) for kind, words in KINDS.items()
        )
        kind = next(
            (kind for kind, words in names if any(word in event.key.lower() for word in words)),
            "other",
        )
        kinds[kind] += getattr(event, key)
    total = sum(kinds.values())
    shares = "\n".join(
        f"{100 * spent / total:5.1f} %  {kind}"
        for kind, spent in sorted(kinds.items(), key=lambda item: -item[1])
    )
    return (
        shares
        + "\n"
        + watch.key_averages(group_by_input_shape=True).table(
            sort_by=key, row_limit=25, max_name_column_width=40
        )
    )


def loader_rates(shards: Shards, config: Config, seconds: float = 5.0) -> dict[str, float]:
    """Videos a second that come from the shards, by threads."""
    clips = shards.select(~shards.held_out_mask(config.train.held_out_fraction))
    videos = len(set(clips.video_ids))
    stream = training_stream(
        clips,
        config.changed("train", batch_size=min(config.train.batch_size, videos), accumulate=1),
    )
    rates = {}
    threads = 1
    while threads <= cpu_count():
        batches = stream.batches(0, 10**9, threads)
        next(batches)
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            count += len(next(batches).video_ids)
        rates[str(threads)] = count / (time.perf_counter() - began)
        batches.close()
        threads *= 2
    return rates


STEPS_PER_TURN = 5


def take_turns_as_child(step: Step, device: str) -> None:
    """For each line on stdin take some steps, and print their seconds and losses as JSON."""
    # On a CPU the time of the processor, because other programs interrupt a step.
    clock = time.perf_counter if device.startswith("cuda") else time.process_time
    for _ in sys.stdin:
        seconds: list[float] = []
        losses: list[float] = []
        for _ in range(STEPS_PER_TURN):
            # The loss is a number, so the device has finished the step.
            began = clock()
            losses.append(step())
            seconds.append(clock() - began)
        print(json.dumps({"seconds": seconds, "losses": losses}), flush=True)


def start_child(tree: Path) -> subprocess.Popen[str]:
    """A process of this program with the package of `tree`, which waits for turns."""
    return subprocess.Popen(
        [sys.executable, *sys.argv, "--child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tree / "src")},
    )


def turn_of(child: subprocess.Popen[str]) -> dict[str, list[float]]:
    assert child.stdin
    assert child.stdout
    child.stdin.write("\n")
    child.stdin.flush()
    answer: dict[str, list[float]] = json.loads(child.stdout.readline())
    return answer


def compared(other_tree: Path, batch: int, turns: int) -> dict[str, Any]:
    """The step of this tree against that of another one."""
    children = {
        "this tree": start_child(Path(__file__).resolve().parents[1]),
        "other tree": start_child(other_tree),
    }
    first_losses = {name: turn_of(child)["losses"] for name, child in children.items()}
    times: dict[str, list[float]] = {name: [] for name in children}
    for _ in range(turns):
        for name, child in children.items():
            # The fastest step of a turn: other programs can only make a step slower.
            times[name].append(min(turn_of(child)["seconds"]))
    for child in children.values():
        child.communicate()
    pairs_of_losses = zip(first_losses["this tree"], first_losses["other tree"], strict=True)
    ratios = [
        other / own for own, other in zip(times["this tree"], times["other tree"], strict=True)
    ]
    return {
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "videos_per_second": {
            name: batch / statistics.median(seconds) for name, seconds in times.items()
        },
        "first_losses": first_losses["this tree"],
        "loss_differences": [abs(own - other) for own, other in pairs_of_losses],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="l3")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--loader", metavar="SHARDS")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--against", metavar="TREE", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    # as all programs of the shell do; what it is worth, benchmarks/allocator.py measures
    keep_freed_memory()
    device = choose_device(given.device)
    size = given.batch or (256 if device.value.startswith("cuda") else 8)
    config = Config.load(given.config).changed("train", batch_size=size, accumulate=1)
    half = choose_precision(device.value, config.train.precision).value == "bfloat16"
    if given.child:
        step, _ = product_step(config, noise_batch(config, size), device.value, compiled=False)
        take_turns_as_child(step, device.value)
        return
    if given.against:
        result = compared(given.against, size, given.repeats) | {
            "device": device.value,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "config": given.config,
            "batch": size,
            "precision": "bfloat16" if half else "float32",
        }
        print(json.dumps(result, indent=None if given.json else 1))
        return
    if given.profile:
        print(breakdown(config, noise_batch(config, size), device.value))
        return
    result = step_result(config, device.value, given.repeats, not given.no_compile)
    result |= {
        "device": f"{device.value} ({device.reason})",
        "torch": torch.__version__,
        "config": given.config,
    }
    if given.loader:
        result["loader_videos_per_second"] = loader_rates(Shards(given.loader), config)
    if given.json:
        print(json.dumps(result))
        return
    print_step_table(result)
    for threads, rate in result.get("loader_videos_per_second", {}).items():
        step_rate = float(result["videos_per_second"])
        print(f"loader, {threads} threads: {rate:.0f} videos/s, the step takes {step_rate:.1f}")


if __name__ == "__main__":
    main()
