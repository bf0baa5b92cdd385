"""How well networks and simple methods tell which sound belongs to which frame, on real clips.

    python benchmarks/real.py FOLDER --out OUT [--network NAME ...] [--head RECIPE ...]
        [--cca NAME ...] [--from-scratch RECIPE ... --seeds SEED ... --others SHARDS ...]

FOLDER has `clips.csv` (path, video_id, kind: natural or reel), `boxes.csv` and the videos. They are
prepared once, into OUT/shards. Videos are split into five folds. A method that learns is trained on
four folds and measured on the fifth, without a label. All choices are made inside the four folds.
A network that is finished is measured on the same pairs. Figures are pooled over the folds and have
95 % intervals over videos. The table is printed as Markdown; OUT/real.json has all figures.

Rows: hand-made descriptions with CCA; for each network its answers (`untrained:RECIPE`, a run, any
name that `looklisten.open` takes), and with --cca the CCA of its frozen towers. With --head the
fusion of a recipe is trained on its frozen towers, as `benchmarks/start_head.py` trains `start`.
With --from-scratch a network of a recipe, or of a TOML file, learns on the other folds, once for
each seed. Its runs stay in OUT, and a second call continues.
"""

import argparse
import csv
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cca import CCA, RIDGES
from from_scratch import Scratch
from numpy.typing import NDArray

import looklisten as ll
from looklisten.errors import ConfigError
from looklisten.evaluation.all_pairs import COMPARED_PER_CLIP, score_matrix
from looklisten.evaluation.calibration import fit_calibration
from looklisten.evaluation.linear_probe.audio import log_mel_statistics
from looklisten.evaluation.linear_probe.images import colors_and_edges
from looklisten.evaluation.localization.baselines import network_predictor
from looklisten.evaluation.localization.evaluate import annotated_moments, pointing_of
from looklisten.evaluation.localization.mosaics import MosaicAnswers, Tiles, answer_mosaics
from looklisten.evaluation.ranking import Accuracy, Ranking, ScoreMatrix, Share, pooled, rank
from looklisten.inference.localization.methods import default_method
from looklisten.inference.moments import look_and_listen, moments
from looklisten.media.frames import crop, stack
from looklisten.model.l3net import L3Net
from looklisten.training.frozen_towers.cache import open_features
from looklisten.training.frozen_towers.calibrate import cross_fitted_calibration
from looklisten.training.frozen_towers.fit import fit_fusion

FOLDS = 5
KINDS = ("natural", "reel", "all")
MOSAICS: tuple[Tiles, ...] = (2, 4)
CCA_DIMENSIONS = 32
MOTION_CELLS = 4
DESCRIPTION_CONFIG = ll.Config.load("tiny").model.model_copy(
    update={"resize_pixels": 128, "crop_pixels": 112, "frames_per_pair": 2}
)
"""Hand-made descriptions read two neighboring frames of 112 pixels."""


@dataclass(frozen=True)
class Fold:
    """The clips of a fold and those of the others, as masks over all clips."""

    test: NDArray[np.bool_]

    @property
    def train(self) -> NDArray[np.bool_]:
        return ~self.test


@dataclass(frozen=True, eq=False)
class Features:
    """What a CCA reads of every moment: row i of both sides is of the clip `clips[i]`."""

    vision: NDArray[np.float64]
    audio: NDArray[np.float64]
    clips: NDArray[np.int64]


@dataclass(eq=False)
class Row:
    """The figures of one method, gathered fold by fold."""

    name: str
    rankings: dict[str, list[Ranking]] = field(default_factory=dict)
    mosaics: dict[int, list[MosaicAnswers]] = field(default_factory=dict)
    pointed: int = 0
    at_center: int = 0
    boxes: int = 0
    seconds: float = 0.0
    training_seconds: float = 0.0
    """Processor seconds of training from scratch, of all folds."""

    def add(self, matrix: ScoreMatrix, kinds: NDArray[np.str_]) -> None:
        """Add the scores of a fold; `kinds` has that of each moment."""
        for kind in KINDS:
            mask = np.full(len(kinds), True) if kind == "all" else kinds == kind
            self.rankings.setdefault(kind, []).append(rank(matrix.select(mask)))

    def as_dict(self) -> dict[str, Any]:
        values: dict[str, Any] = {"name": self.name, "seconds": round(self.seconds)}
        for kind, rankings in self.rankings.items():
            accuracy = Accuracy(
                pooled([ranking.accuracy.matched for ranking in rankings]),
                pooled([ranking.accuracy.mismatched for ranking in rankings]),
            )
            figures: dict[str, Share | Accuracy] = {
                "one_of_two": pooled([ranking.one_of_two for ranking in rankings]),
                "auc": pooled([ranking.auc for ranking in rankings]),
                "accuracy": accuracy,
            }
            for name, figure in figures.items():
                values[f"{kind}_{name}"] = figure.value
                values[f"{kind}_{name}_ci95"] = figure.ci95()
        for tiles, folds in self.mosaics.items():
            right = [answer for fold in folds for answer in fold.right]
            videos = [names for fold in folds for names in fold.videos]
            sounding = [name for fold in folds for name in fold.sounding]
            answers = MosaicAnswers(folds[0].tiles, folds[0].method, right, videos, sounding)
            result = answers.result()
            values[f"mosaic_{tiles}"] = result.pointing
            values[f"mosaic_{tiles}_ci95"] = result.pointing_ci95
            values[f"mosaic_{tiles}_trials"] = result.trials
        if self.boxes:
            values |= {"boxes": self.boxes, "pointed": self.pointed, "at_center": self.at_center}
        if self.training_seconds:
            values["training_seconds"] = round(self.training_seconds)
        return values


def make_folds(video_ids: NDArray[np.str_], kinds: NDArray[np.str_]) -> list[Fold]:
    """Five folds of whole videos, with each kind spread evenly; by hash, so without a seed."""
    fold_of_video: dict[str, int] = {}
    for kind in np.unique(kinds):
        names = sorted(
            set(video_ids[kinds == kind].tolist()),
            key=lambda name: hashlib.sha256(name.encode()).hexdigest(),
        )
        for number, name in enumerate(names):
            fold_of_video.setdefault(name, number % FOLDS)
    fold_of_clip = np.array([fold_of_video[name] for name in video_ids.tolist()])
    return [Fold(fold_of_clip == number) for number in range(FOLDS)]


def hand_made_features(clips: ll.Shards) -> Features:
    """Colors, edges and motion in 4 x 4 cells of each frame; log-mel statistics of each second."""
    vision, audio, numbers = [], [], []
    for number, clip in enumerate(clips):
        squares, waveforms = [], []
        for moment in moments(clip, DESCRIPTION_CONFIG, COMPARED_PER_CLIP):
            squares.append(crop(moment.vision_input, DESCRIPTION_CONFIG.crop_pixels, 0.5, 0.5))
            waveforms.append(torch.from_numpy(moment.waveform / 2.0**15))
        frames = stack(squares)
        change = (frames[:, :3].float() - frames[:, 3:].float()).abs().mean(1, keepdim=True)
        motion = torch.nn.functional.adaptive_avg_pool2d(change, MOTION_CELLS).flatten(1)
        vision.append(torch.cat([colors_and_edges(frames[:, :3]), (motion + 1).log()], dim=1))
        audio.append(log_mel_statistics(torch.stack(waveforms)))
        numbers += [number] * len(squares)
    return Features(_as_array(vision), _as_array(audio), np.array(numbers))


@torch.inference_mode()
def tower_features(network: L3Net, clips: ll.Shards) -> Features:
    """Mean and maximum of every unit over the last map of both towers."""
    vision: list[torch.Tensor] = []
    audio: list[torch.Tensor] = []
    numbers: list[int] = []
    for number, clip in enumerate(clips):
        batch = list(moments(clip, network.config, COMPARED_PER_CLIP))
        for output, side in zip(look_and_listen(network, batch), (vision, audio), strict=True):
            pooled_map = [output.map.mean((2, 3)), output.map.amax((2, 3))]
            side.append(torch.cat(pooled_map, dim=1).float())
        numbers += [number] * len(batch)
    return Features(_as_array(vision), _as_array(audio), np.array(numbers))


def _as_array(parts: Sequence[torch.Tensor]) -> NDArray[np.float64]:
    return torch.cat(list(parts)).double().numpy()


def cca_scores(features: Features, video_ids: NDArray[np.str_], fold: Fold) -> ScoreMatrix:
    """The scores of a fold, by a CCA of the others, less a threshold that these chose too."""
    videos = video_ids[features.clips]
    train, test = fold.train[features.clips], fold.test[features.clips]
    # A quarter of the training videos chooses the ridge and the threshold.
    names = sorted(
        set(videos[train].tolist()),
        key=lambda name: hashlib.sha256(f"inner {name}".encode()).hexdigest(),
    )
    inner = np.isin(videos, np.array(names[: len(names) // 4])) & train
    choices = {}
    inner_cca = _cca_of(features, train & ~inner)
    for ridge in RIDGES:
        scores = _cosines(inner_cca, features, inner, ridge)
        matrix = ScoreMatrix(scores, videos[inner])
        choices[ridge] = (rank(matrix).one_of_two.value, _threshold(matrix))
    ridge = max(choices, key=lambda ridge: choices[ridge][0])
    scores = _cosines(_cca_of(features, train), features, test, ridge)
    return ScoreMatrix(scores - choices[ridge][1], videos[test])


def _cca_of(features: Features, train: NDArray[np.bool_]) -> CCA:
    return CCA(features.vision[train], features.audio[train], CCA_DIMENSIONS)


def _cosines(
    cca: CCA, features: Features, test: NDArray[np.bool_], ridge: float
) -> NDArray[np.float64]:
    """The cosine of every frame with every sound, by a CCA of the training rows."""
    cca.fit(ridge)
    vision, audio = cca.projected(features.vision[test], features.audio[test])
    return vision @ audio.T


def _threshold(matrix: ScoreMatrix) -> float:
    try:
        return fit_calibration(matrix).threshold
    except ConfigError:
        # Such scores tell nothing, so any threshold will do.
        return float(np.median(matrix.scores))


def measure_network(
    row: Row, network: L3Net, clips: ll.Shards, kinds: NDArray[np.str_], fold: Fold, trials: int
) -> None:
    """Add the figures of a network on one fold: pairs, mosaics of natural clips, boxes."""
    test = clips.select(fold.test)
    matrix = score_matrix(network, test)
    counts = [len(list(moments(clip, network.config, COMPARED_PER_CLIP))) for clip in test]
    row.add(matrix, np.repeat(kinds[fold.test], counts))
    natural = clips.select(fold.test & (kinds == "natural"))
    for tiles in MOSAICS:
        if trials:
            answers = answer_mosaics(network, natural, tiles, trials // FOLDS)
            row.mosaics.setdefault(tiles, []).append(answers)
    with_boxes = np.array([bool(boxes) for boxes in clips.columns("boxes")["boxes"].to_pylist()])
    boxed = clips.select(fold.test & with_boxes)
    if len(boxed):
        annotated = annotated_moments(network, boxed, per_clip=1)
        predictor = network_predictor(network, default_method(network))
        (pointing,) = pointing_of([predictor], annotated)
        row.pointed += round(pointing.pointing * pointing.n)
        row.at_center += round(pointing.center * pointing.n)
        row.boxes += pointing.n


NetworkOfFold = Callable[[Fold], L3Net]
"""The network that is measured on a fold, and was not trained on it."""


def same_network(name: str) -> NetworkOfFold:
    """A network that is finished."""
    network = ll.load(name)
    return lambda _: network


def network_row(
    name: str,
    network_of_fold: NetworkOfFold,
    clips: ll.Shards,
    kinds: NDArray[np.str_],
    folds: Sequence[Fold],
    trials: int,
) -> Row:
    row = Row(name)
    began = time.perf_counter()
    for fold in folds:
        measure_network(row, network_of_fold(fold).eval(), clips, kinds, fold, trials)
    row.seconds = time.perf_counter() - began
    return row


def cca_row(
    name: str, features: Features, clips: ll.Shards, kinds: NDArray[np.str_], folds: Sequence[Fold]
) -> Row:
    row = Row(name)
    began = time.perf_counter()
    for fold in folds:
        matrix = cca_scores(features, clips.video_ids, fold)
        row.add(matrix, kinds[features.clips][fold.test[features.clips]])
    row.seconds = time.perf_counter() - began
    return row


def from_scratch_row(
    scratch: Scratch,
    clips: ll.Shards,
    kinds: NDArray[np.str_],
    folds: Sequence[Fold],
    trials: int,
) -> Row:
    training_seconds = 0.0

    def network_of_fold(fold: Fold) -> L3Net:
        nonlocal training_seconds
        network, seconds = scratch.run(fold.test)
        training_seconds += seconds
        return network

    row = network_row(scratch.name, network_of_fold, clips, kinds, folds, trials)
    row.training_seconds = training_seconds
    return row


def head_of_fold(recipe: str, clips: ll.Shards) -> NetworkOfFold:
    """The frozen towers of a recipe, with a fusion trained on the other folds."""
    config = ll.Config.load(recipe)
    network = ll.load(f"untrained:{recipe}")
    features = open_features(network, clips, config.train.cached_frames_per_second)

    def fit(fold: Fold) -> L3Net:
        others = clips.select(fold.train)
        fitted = fit_fusion(config, network, others, features, "cpu").network
        fitted.calibration = cross_fitted_calibration(config, network, others, features, "cpu")
        return fitted

    return fit


def rows_of(arguments: argparse.Namespace, clips: ll.Shards, kinds: Any) -> Iterator[Row]:
    folds = [make_folds(clips.video_ids, kinds)[number] for number in arguments.folds]
    if arguments.hand_made:
        yield cca_row("hand-made descriptions, CCA", hand_made_features(clips), clips, kinds, folds)
    for name in arguments.network:
        yield network_row(name, same_network(name), clips, kinds, folds, arguments.trials)
    for name in arguments.cca:
        features = tower_features(ll.load(name), clips)
        yield cca_row(f"{name}, towers frozen, CCA", features, clips, kinds, folds)
    for recipe in arguments.head:
        name = f"{recipe}, its fusion trained on the other folds"
        network_of_fold = head_of_fold(recipe, clips)
        yield network_row(name, network_of_fold, clips, kinds, folds, arguments.trials)
    others = tuple(arguments.others)
    for recipe in arguments.from_scratch:
        for seed in arguments.seeds:
            scratch = Scratch(recipe, seed, arguments.out / "shards", others, arguments.out)
            yield from_scratch_row(scratch, clips, kinds, folds, arguments.trials)


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table; half widths of intervals stand behind each figure."""
    headings = ["method"]
    for kind in KINDS:
        headings += [f"one of two, {kind}", f"AUC, {kind}", f"yes/no, {kind}"]
    headings += [f"mosaics of {tiles}" for tiles in MOSAICS] + ["boxes (center)"]
    lines = [headings, ["---"] * len(headings)]
    for row in rows:
        cells = [str(row["name"])]
        for kind in KINDS:
            for figure in ("one_of_two", "auc", "accuracy"):
                cells.append(cell(row, f"{kind}_{figure}"))
        cells += [cell(row, f"mosaic_{tiles}") for tiles in MOSAICS]
        boxes = ""
        if "boxes" in row:
            boxes = f"{row['pointed']} of {row['boxes']} ({row['at_center']})"
        lines.append([*cells, boxes])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(row: dict[str, Any], name: str) -> str:
    if name not in row:
        return ""
    low, high = row[f"{name}_ci95"]
    return f"{100 * row[name]:.1f} ± {50 * (high - low):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--hand-made", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--network", nargs="*", default=["untrained:tiny"])
    parser.add_argument("--cca", nargs="*", default=[], help="networks whose towers a CCA joins")
    parser.add_argument("--head", nargs="*", default=[], metavar="RECIPE")
    parser.add_argument("--from-scratch", nargs="*", default=[], metavar="RECIPE")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0], help="of --from-scratch")
    parser.add_argument(
        "--others", nargs="*", type=Path, default=[], help="shards --from-scratch trains on too"
    )
    every_fold = list(range(FOLDS))
    parser.add_argument("--folds", nargs="*", type=int, default=every_fold, help="measured ones")
    parser.add_argument("--trials", type=int, default=2000, help="mosaics of each size; 0: none")
    arguments = parser.parse_args()
    table = arguments.folder / "clips.csv"
    with table.open(newline="") as file:
        kind_of_source = {row["path"]: row["kind"] for row in csv.DictReader(file)}
    shards = arguments.out / "shards"
    if not (shards / "index.json").is_file():
        ll.prepare([table], shards, boxes=arguments.folder / "boxes.csv")
    clips = ll.Shards(shards)
    sources = clips.columns("source")["source"].to_pylist()
    kinds = np.array([kind_of_source[source] for source in sources])
    results = []
    for row in rows_of(arguments, clips.split("all", 0.1), kinds):
        results.append(row.as_dict())
        print(markdown(results[-1:]).splitlines()[-1], flush=True)
        text = json.dumps({"clips": len(clips), "rows": results}, indent=1)
        (arguments.out / "real.json").write_text(text + "\n")
    print("\n" + markdown(results))


if __name__ == "__main__":
    main()
