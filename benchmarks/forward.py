"""Rows a second of a network's towers: unfused one row at a time, and as `embed` computes them.

    python benchmarks/forward.py [--config l3] [--threads 1] [--rows 8] [--repeats 9]
    [--precisions float32 bfloat16] [--json]

A row is a second of noise or a picture of noise; batch-norm has random statistics. Both ways take
turns. Times are processor time a row, the lowest over the turns, because neighbors on a shared
machine only add time; with more than one thread wall time. The ratio is of these times. The cosine
is the lowest of any row between the two ways.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

import looklisten as ll
from looklisten.config import SIDES, Side
from looklisten.inference.encoder import NetworkEncoder, encode_rows, encoder_of, rows_at_once
from looklisten.inference.towers import side_vectors
from looklisten.media.spectrogram import WINDOW_SAMPLES
from looklisten.model.l3net import L3Net
from looklisten.system.devices import choose_precision
from looklisten.system.processes import keep_freed_memory


@dataclass(frozen=True)
class Comparison:
    """One side of a network in one precision."""

    side: Side
    precision: str
    rows_of_a_batch: int
    unfused_ms: float
    fused_ms: float
    ratio: float
    median_ratio: float
    lowest_cosine: float


def a_network(config: str) -> L3Net:
    torch.manual_seed(0)
    network = L3Net(ll.Config.load(config).model).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            # Those of a new network are 0 and 1, which would hide a mistake in the folding.
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network


def rows_of_noise(network: L3Net, side: Side, rows: int) -> Tensor:
    if side == "audio":
        return torch.randn(rows, WINDOW_SAMPLES) * 0.1
    pixels = network.config.crop_pixels
    return torch.randint(0, 256, (rows, 3, pixels, pixels), dtype=torch.uint8)


def unfused(encoder: NetworkEncoder, side: Side, rows: Tensor) -> Tensor:
    network = encoder.model
    run = network.listen if side == "audio" else network.look
    vectors = []
    for row in torch.split(rows, 1):
        with encoder.autocast:
            vectors.append(side_vectors(network, run(row), side, encoder.layers[side][0]))
    return torch.cat(vectors)


def compare(
    encoder: NetworkEncoder, side: Side, rows: Tensor, repeats: int, clock: Callable[[], float]
) -> Comparison:
    ways: tuple[Callable[[], Tensor], ...] = (
        lambda: unfused(encoder, side, rows),
        lambda: encode_rows(encoder, side, encoder.layers[side][0], rows, len(rows)),
    )
    seconds: list[list[float]] = [[], []]
    vectors: list[Tensor] = [torch.empty(0), torch.empty(0)]
    for turn in range(repeats + 1):
        for number, way in enumerate(ways):
            start = clock()
            vectors[number] = way()
            # The first turn is for warming up.
            if turn:
                seconds[number].append((clock() - start) / len(rows))
    before, after = seconds
    cosines = nn.functional.cosine_similarity(vectors[0], vectors[1])
    return Comparison(
        side=side,
        precision=encoder.precision,
        rows_of_a_batch=rows_at_once(encoder, side, 1),
        unfused_ms=1000 * min(before),
        fused_ms=1000 * min(after),
        ratio=min(before) / min(after),
        median_ratio=statistics.median(a / b for a, b in zip(before, after, strict=True)),
        lowest_cosine=cosines.min().item(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="l3")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--precisions", nargs="+", choices=("float32", "bfloat16"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    # As the command line does.
    keep_freed_memory()
    precisions = options.precisions or sorted({"float32", choose_precision("cpu").value})
    # Processor time of several threads counts those that wait.
    clock = time.process_time if options.threads == 1 else time.perf_counter
    network = a_network(options.config)
    comparisons = []
    with torch.inference_mode():
        for precision in precisions:
            encoder = encoder_of(network, precision)
            assert isinstance(encoder, NetworkEncoder)
            for side in SIDES:
                rows = rows_of_noise(network, side, options.rows)
                comparisons.append(compare(encoder, side, rows, options.repeats, clock))
    if options.json:
        print(json.dumps([asdict(comparison) for comparison in comparisons]))
        return
    print(f"{options.config}, {options.threads} threads, ms a row")
    print("| side | precision | rows of a batch | unfused | fused | ratio | median | cosine |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for c in comparisons:
        print(
            f"| {c.side} | {c.precision} | {c.rows_of_a_batch} | {c.unfused_ms:.2f} "
            f"| {c.fused_ms:.2f} | {c.ratio:.2f} | {c.median_ratio:.2f} | {c.lowest_cosine:.7f} |"
        )


if __name__ == "__main__":
    main()
