"""The shell: `looklisten VERB …`. Each verb is the library's function of the same name; stdout is
written here alone.

stdout is data: a table when a person looks, JSON when piped or with `--json`. stderr is talk. Exit
codes: 0 done; 1 a LookListenError, or a doctor that found something missing; 2 wrong usage; 3 done,
but some inputs failed (see failures.jsonl); 130 interrupted.
"""

import errno
import io
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table
from tyro.conf import Positional

from looklisten.app.terminal import Bar, talk
from looklisten.config import Config
from looklisten.errors import LookListenError
from looklisten.names import shown
from looklisten.system.files import check_writable
from looklisten.system.processes import is_first_process, keep_freed_memory

Result = dict[str, Any]


class UsageError(LookListenError):
    """A command line that cannot be meant; exit code 2."""


NOT_READY = 1
SOME_FAILED = 3
INTERRUPTED = 130

TABULAR = ("rows", "other_sounds", "published")
"""Parts of a result that are records of one kind, which a table shows under headings."""
TABLE_ENTRIES = 20
"""Entries of one part of a result that a table shows; JSON has them all."""


def synth(
    out: Positional[Path],
    /,
    videos: int = 360,
    seed: int = 0,
    seconds: float = 10.0,
    side_pixels: int = 256,
    frames_per_second: int = 25,
    silent_share: float = 1 / 3,
    test_share: float = 0.25,
    wild_kinds: int = 0,
    pictures: Path | None = None,
    sounds: Path | None = None,
    same: tuple[str, ...] = (),
    speed_change: float = 0.25,
    workers: int | None = None,
) -> Result:
    """Make a world of videos with known truth: real MP4 files, labels.csv, boxes.csv, onsets.csv.
    Or compose one of your own files.

    Args:
        out: Folder to write.
        videos: How many videos.
        seed: The same seed and settings give the same files.
        seconds: Length of each video.
        side_pixels: Width and height.
        frames_per_second: Frame rate.
        silent_share: Share of videos in which a second object of another class stands by in
            silence.
        test_share: Share of videos of the split "test"; the others are "train".
        wild_kinds: Instead of the twelve classes: so many, each with a look and a voice drawn from
            its number.
        pictures: Instead of drawing: your own pictures, FOLDER/CLASS/FILE or a table with path and
            label.
        sounds: Instead of synthesizing: your own sounds, likewise; joined to the pictures by class.
        same: Classes that the sounds call otherwise than the pictures, such as drum_kit=drum
            (several: one after the other).
        speed_change: Own sounds are played faster or slower by up to this share, pitch and all.
        workers: Processes; by default one a core.
    """
    from looklisten.media.synth import World
    from looklisten.media.synth import synth as make

    check_writable(out)
    if (pictures is None) != (sounds is None):
        raise UsageError("--pictures and --sounds go together: a video is composed of one of each")
    if pictures and sounds:
        from looklisten.media.synth.collage import Collage

        pairs = [tuple(pair.split("=")) for pair in same]
        if wrong := [pair for pair in pairs if len(pair) != 2]:
            raise UsageError(f"--same takes PICTURES_NAME=SOUNDS_NAME, not {'='.join(wrong[0])}")
        names = tuple((picture, sound) for picture, sound in pairs)
        world: Any = Collage(
            str(pictures),
            str(sounds),
            videos,
            seed,
            seconds,
            side_pixels,
            frames_per_second,
            test_share,
            names,
            speed_change,
        )
    else:
        world = World(
            videos,
            seed,
            seconds,
            side_pixels,
            frames_per_second,
            silent_share,
            test_share,
            wild_kinds=wild_kinds,
        )
    with Bar("synth: videos") as bar:
        return make(out, world, workers, bar)


def table(
    dataset: Positional[Literal["kinetics", "kinetics-sounds", "vggsound", "audioset"]],
    annotations: Annotated[Positional[Path], tyro.conf.arg(metavar="ANNOTATIONS")],
    videos: Annotated[Positional[Path], tyro.conf.arg(metavar="VIDEOS")],
    out: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT.csv")],
    /,
    classes: Literal["kinetics-400", "paper"] = "kinetics-400",
    ontology: Path | None = None,
    whole_videos: bool = False,
) -> Result:
    """Turn the annotations of a public set and a folder of its videos into a table that prepare
    reads.

    Args:
        dataset: The set: kinetics (400, 600, 700), kinetics-sounds, vggsound, audioset.
        annotations: File that the set's owner distributes.
        videos: Folder of videos that are named by YouTube id; searched below too.
        out: Table to write: path, label, start_seconds, stop_seconds, video_id, split.
        classes: With kinetics-sounds: the 32 classes of Kinetics-400, or the 34 names of the paper.
        ontology: With audioset: ontology.json or class_labels_indices.csv, for readable labels.
        whole_videos: The files are whole videos, so the table says where each clip starts and
            stops.
    """
    from looklisten.data.public_sets import table as run

    check_writable(out.parent)
    return run(dataset, annotations, videos, out, classes, ontology, whole_videos)


def prepare(
    paths: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="VIDEOS... OUT")],
    /,
    labels: Literal["table", "folder"] = "table",
    boxes: str | None = None,
    skip: str = "",
    clip_seconds: float = 10.0,
    min_clip_seconds: float = 1.0,
    frames_per_second: float = 5.0,
    shorter_side_pixels: int = 256,
    jpeg_quality: int = 90,
    shard_megabytes: int = 256,
    max_megapixels: float = 40.0,
    max_hours: float = 24.0,
    stall_seconds: float = 120.0,
    memory_megabytes: int = 4096,
    engine: Literal["local", "ray"] = "local",
    task_index: int | None = None,
    num_tasks: int = 1,
    workers: int | None = None,
    again: bool = False,
) -> Result:
    """Cut videos into shards that training reads. Run it again to finish an interrupted run or to
    add videos.

    Args:
        paths: Videos, folders, globs, text lists, or tables (CSV, TSV, Parquet) with a column path;
            last the folder of the shards. Each may be an address such as s3://bucket/videos.
        labels: From the table's column label, or the name of the folder that a video lies in.
        boxes: Table of known places: path, time, x0, y0, x1, y1, label, sounding.
        skip: Leave out clips with one of these marks: silent, still, black, clipped, short,
            duplicate, damaged, out-of-phase, hdr (joined by commas).
        clip_seconds: Longest clip.
        min_clip_seconds: Shortest clip.
        frames_per_second: Frames kept a second, at their own timestamps.
        shorter_side_pixels: Frames are scaled down to this shorter side, never up.
        jpeg_quality: 1 to 100.
        shard_megabytes: Largest shard file.
        max_megapixels: Larger frames are refused.
        max_hours: A longer video is cut off there.
        stall_seconds: A video that does not get on by a second for so long is given up.
        memory_megabytes: What one worker may take for one video.
        engine: This machine (local), or a Ray cluster that is running (ray).
        task_index: In a job array: which share of the work this call does, from 0.
        num_tasks: In a job array: how many shares there are.
        workers: Processes; by default one a core. With ray: tasks at a time.
        again: Prepare anew what failed and what has changed since; without it only what both failed
            and has changed.
    """
    from looklisten.data.cutting import PrepareSettings
    from looklisten.data.prepare import prepare as run
    from looklisten.media.isolation.process import SourceLimits

    settings = PrepareSettings(
        clip_seconds=clip_seconds,
        min_clip_seconds=min_clip_seconds,
        frames_per_second=frames_per_second,
        shorter_side_pixels=shorter_side_pixels,
        jpeg_quality=jpeg_quality,
        shard_megabytes=shard_megabytes,
        skip=tuple(mark.strip() for mark in skip.split(",") if mark.strip()),
        max_megapixels=max_megapixels,
        max_hours=max_hours,
    )
    if len(paths) < 2:
        raise UsageError(
            "prepare needs the videos and then the folder of the shards: looklisten prepare VIDEOS... OUT"
        )
    if num_tasks > 1 and task_index is None:
        raise UsageError(
            "--num-tasks needs --task-index: which share of the work this call does, from 0"
        )
    *inputs, out = paths
    limits = SourceLimits(stall_seconds=stall_seconds, memory_megabytes=memory_megabytes)
    with Bar("prepare: videos") as bar:
        return run(
            inputs,
            out,
            settings,
            boxes,
            workers,
            bar,
            labels=labels,
            limits=limits,
            engine=engine,
            task_index=task_index,
            num_tasks=num_tasks,
            again=again,
        )


def train_with(recipe: str) -> Callable[..., Result]:
    """The verb `train`, its options' defaults being those of `recipe`."""
    settings = Config.load(recipe)
    name = Path(recipe).stem

    def train(
        shards: Positional[str],
        /,
        config: str = recipe,  # noqa: ARG001 (read before the other options, for their defaults)
        # torchrun reads every option first and finds --run ambiguous, hence another name.
        run: Annotated[Path, tyro.conf.arg(aliases=["-o", "--out"])] = Path("runs") / name,
        device: str = "auto",
        resume: Literal["auto", "never", "other-data"] = "auto",
        overfit: int = 0,
        sweep: tuple[str, ...] = (),
        sweep_steps: int = 300,
        settings: Annotated[Config, tyro.conf.arg(name="")] = settings,
    ) -> Result:
        """Train L3-Net on shards, without a label. Run it again to go on where it stopped.

        Under torchrun (`torchrun --nproc-per-node=4 -m looklisten train … -o RUN`) the processes
        share each batch.

        Args:
            shards: Folder that `prepare` wrote.
            config: Recipe: tiny, l3, ave, avol, contrastive, similarity, dense, baselines/direct
                (and others there), or a TOML file. Its values are the defaults of the options
                below.
            run: Folder of the run: config.toml, metrics.jsonl, tensorboard/, checkpoints/. Under
                torchrun write -o, as it has a --run of its own.
            device: auto, cpu, cuda, cuda:1, mps.
            resume: Go on where the folder's run stopped (auto); refuse a folder that holds one
                (never); or go on even if the shards are others and train on videos that were held
                out before (other-data).
            overfit: Instead of a run: can so many videos be learnt by heart within a minute?
            sweep: Instead of a run: short ones with each of these values, such as lr=1e-5,3e-5,1e-4
                (lr is train.learning_rate; several settings make every combination), and which is
                best.
            sweep_steps: Steps of each short run.
            settings: What the recipe says; any of it can be changed here.
        """
        from looklisten.training.loop import train as run_training
        from looklisten.training.sweep import overfit as learn_by_heart
        from looklisten.training.sweep import sweep as run_sweep

        if not overfit:
            check_writable(run)
        if overfit and sweep:
            raise UsageError("--overfit and --sweep are two questions; ask one at a time")
        if overfit:
            with Bar("overfit: seconds") as bar:
                return asdict(learn_by_heart(shards, settings, overfit, device, progress=bar))
        if sweep:
            with Bar("sweep: steps") as bar:
                return run_sweep(shards, settings, run, sweep, sweep_steps, device, bar).as_dict()
        with Bar("train: steps") as bar:
            return asdict(run_training(shards, settings, run, device, bar, resume))

    return train


def baselines(
    shards: Positional[str],
    /,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("runs/baselines"),
    config: str = "tiny",
    steps: int | None = None,
    seeds: str = "0,1,2",
    pairs: int = 4000,
    teacher: Path | None = None,
    device: str = "auto",
) -> Result:
    """The paper's correspondence table on labelled shards: supervised baselines, a fixed teacher,
    L3-Net. Run again it goes on.

    Args:
        shards: Labelled shards (`prepare` of a table with a column label).
        out: Folder of the table: results.json, and seed-N/ with a run for each row.
        config: Recipe of all rows: network, batch, rate, steps.
        steps: Steps of each run; by default the recipe's.
        seeds: Joined by commas; each trains every row once.
        pairs: At least so many held-out pairs, half of them positive, the same for all rows.
        teacher: Checkpoint whose vision tower is the fixed teacher; by default the supervised one.
        device: auto, cpu, cuda, mps.
    """
    from looklisten.training.baselines import baselines as run

    if not all(seed.strip().isdecimal() for seed in seeds.split(",")):
        raise UsageError(
            f"--seeds are whole numbers joined by commas, such as 0,1,2; not {seeds!r}"
        )
    settings = Config.load(config)
    check_writable(out)
    if steps is not None:
        settings = settings.changed("train", steps=steps)
    with Bar("baselines: steps") as bar:
        return run(
            shards,
            out,
            settings,
            [int(seed) for seed in seeds.split(",")],
            pairs,
            teacher,
            device,
            bar,
        ).as_dict()


def evaluate(
    what: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="[SET] PATH")],
    /,
    checkpoint: str = "runs/tiny",
    task: Literal["correspondence", "localization"] = "correspondence",
    pairs: int = 4000,
    seed: int = 0,
    negatives: Literal["any", "other-class"] = "any",
    threshold: Literal["learnt", "validation"] = "learnt",
    method: tuple[Literal["unit", "correspondence", "similarity"], ...] = (),
    per_clip: int = 2,
    annotations: Path | None = None,
    ids: Path | None = None,
    partial: bool = False,
    files: Path | None = None,
    device: str = "auto",
) -> Result:
    """How often the network is right about "does this sound belong to this picture?" on held-out
    videos; or where it points.

    A network that was trained on labels answers by the direct combination of its class scores.

    Args:
        what: Folder that `prepare` wrote; or, for localization, vggss or flickr-soundnet and the
            folder of its frames/ and audio/, or of its videos.
        checkpoint: Folder of a run, of one checkpoint or of a published network, or a name on the
            Hugging Face Hub (org/name).
        task: correspondence (yes and no), or localization (do maps point at what sounds, and follow
            it?).
        pairs: At least so many pairs, half of them positive.
        seed: Draws the pairs, or the sounds that stand in for a frame's own.
        negatives: The sounds of any other video, or of those with another label.
        threshold: The yes and no as it was learnt, or with its threshold chosen on the run's
            validation videos (it must have kept some: train.validation_fraction).
        method: With localization: by default all that the network can; several one after the other.
        per_clip: With localization of shards: moments of each clip.
        annotations: Of vggss: vggss.json; of flickr-soundnet: its folder of XML.
        ids: Of such a set: a list whose first column names the clips that count, such as
            flickr_test.csv.
        partial: Measure a set of which a part is missing, which is no figure to compare.
        files: Of videos that `synth` composed: its table of the files that each is made of, over
            which intervals are taken; by default the labels.csv beside the videos.
        device: auto, cpu, cuda, mps.
    """
    from looklisten.data.shards import Shards
    from looklisten.evaluation.correspondence import evaluate as run
    from looklisten.evaluation.supervised import direct_combination, with_validated_threshold
    from looklisten.interop.loading import open_trained
    from looklisten.system.devices import choose_device
    from looklisten.training.provenance import warn_of_trained_videos

    if not 1 <= len(what) <= 2:
        raise UsageError(
            "evaluate needs shards, or a set and where it lies: looklisten evaluate SHARDS, looklisten evaluate vggss MEDIA"
        )
    saved = open_trained(checkpoint)
    model, settings = saved.model().to(choose_device(device).value), saved.config.train
    if len(what) == 2:
        from looklisten.evaluation.localization.evaluate import localization_of

        items = _marked(what, annotations, ids, partial, model.config)
        with Bar(f"evaluate: {what[0]}") as bar:
            return localization_of(model, items, method, seed, bar).as_dict()
    data = Shards(what[0])
    held_out = data.held_out(settings.held_out_fraction)
    warn_of_trained_videos(saved.path, saved.step, data.video_ids[held_out].tolist())
    if task == "localization":
        from looklisten.evaluation.localization.evaluate import localization

        with Bar("evaluate: maps") as bar:
            return localization(model, data, held_out, method, per_clip, seed, bar).as_dict()
    with Bar("evaluate: batches") as bar:
        answer = None
        if settings.objective == "labels":
            answer = direct_combination(saved, model, data, pairs, seed, bar).answer
        elif threshold == "validation":
            answer = with_validated_threshold(saved, model, data, pairs, seed, bar, negatives)
        return run(model, data, held_out, pairs, seed, bar, answer, negatives, files).as_dict()


def _marked(
    what: Sequence[str], annotations: Path | None, ids: Path | None, partial: bool, config: Any
) -> Any:
    from looklisten.evaluation.sets.localization_sets import LAYOUTS, read_marked

    name, media = what
    if name not in LAYOUTS:
        raise UsageError(
            f"there is no set {name!r} with boxes; evaluate takes {' or '.join(LAYOUTS)} and where it lies, or shards alone"
        )
    if annotations is None:
        raise UsageError(f"evaluate {name} needs --annotations: {LAYOUTS[name].annotations}")
    return read_marked(name, media, annotations, config, ids, partial)  # type: ignore[arg-type]


def probe(
    what: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="DATASET PATH")],
    /,
    checkpoint: str = "runs/tiny",
    compare: str = "all",
    layer: Literal["conv4_2", "pool4", "aligned", "texture"] = "conv4_2",
    cache: Path | None = None,
    partial: bool = False,
    drawings: int | None = None,
    per_clip: int = 5,
    device: str = "auto",
) -> Result:
    """What a linear classifier reads from the frozen vectors, beside the same network untrained and
    what others reported.

    Args:
        what: The set and where it lies: esc50, esc10, dcase2013, urbansound8k, imagenet; sounds or
            images (a folder with a folder a class, or a table with path, label and perhaps fold);
            shards, which is meant where the path stands alone.
        checkpoint: Folder of a run or of one checkpoint, or untrained:RECIPE for a network as it
            begins.
        compare: Rivals in the table: all, none, or some joined by commas: untrained, spectrogram
            (of sounds), colors (of pictures).
        layer: conv4_2 (the paper's: 6144 numbers a second of sound, 8192 a picture), pool4 (512),
            aligned, or, of sound, texture: how all units of all layers behave over time, a clip
            classified once; not the paper's, and the best there is here.
        cache: Folder where vectors are kept, so that nothing is computed twice; by default in the
            user's cache.
        partial: Measure a public set of which a part is missing, which is no figure to compare.
        drawings: How often the untrained network is drawn, its row being the mean; by default 3
            times for sounds, once for pictures.
        per_clip: With shards: moments of each clip.
        device: auto, cpu, cuda, mps.
    """
    from looklisten.evaluation.sets.registry import SETS

    dataset, path = (
        what if len(what) == 2 else ("shards", *what[:1]) if len(what) == 1 else ("", "")
    )
    if dataset not in SETS and dataset != "shards":
        raise UsageError(
            f"probe needs a set and where it lies: looklisten probe DATASET PATH, DATASET being {', '.join(SETS)} or shards"
        )
    if drawings is not None and drawings < 1:
        raise UsageError(
            f"--drawings {drawings} would leave no untrained network; to have none in the table say --compare none"
        )
    if dataset == "shards":
        own = {
            "compare": compare != "all",
            "layer": layer != "conv4_2",
            "cache": cache,
            "partial": partial,
            "drawings": drawings,
        }
        if given := [f"--{option}" for option, value in own.items() if value]:
            raise UsageError(
                f"{' and '.join(given)}: for sets of sounds or pictures; shards take --checkpoint, --per-clip, --device"
            )
        return _probe_shards(path, checkpoint, per_clip, device)
    if per_clip != 5:
        raise UsageError(
            f"--per-clip {per_clip}: for shards; of {dataset} the protocol says which parts are taken"
        )
    from looklisten.evaluation.linear_probe.public_sets import probe_set
    from looklisten.system.cache import writable_cache

    rivals: Any = {"all": None, "none": []}.get(
        compare, [name.strip() for name in compare.split(",")]
    )
    with Bar(f"probe: {dataset}") as bar:
        kept = cache or writable_cache("probe")
        table = probe_set(
            dataset,  # type: ignore[arg-type]
            path,
            checkpoint,
            rivals,
            layer,
            kept,
            partial,
            device,
            bar,
            drawings,
        )
        return table.as_dict()


def _probe_shards(shards: str, checkpoint: str, per_clip: int, device: str) -> Result:
    from looklisten.data.shards import Shards
    from looklisten.evaluation.linear_probe.shards import probe as run
    from looklisten.interop.loading import open_trained
    from looklisten.system.devices import choose_device

    saved = open_trained(checkpoint)
    with Bar("probe: clips") as bar:
        network, train = saved.model().to(choose_device(device).value), saved.config.train
        sides = run(network, Shards(shards), per_clip, train.seed, train.held_out_fraction, bar)
    return {side: result.as_dict() for side, result in sides.items()}


def cluster(
    shards: Positional[str],
    /,
    checkpoint: Path = Path("runs/tiny"),
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    split: str = "held-out",
    k: int = 64,
    kmeans_seeds: int = 10,
    device: str = "auto",
) -> Result:
    """Whether vectors fall into classes nobody told of: NMI of k-means, units that prefer a class,
    beside the untrained network.

    Args:
        shards: Labelled shards (`prepare` of a table with a column label).
        checkpoint: Folder of a run or of one checkpoint.
        out: Picture to write: the vectors of both sides in a plane (t-SNE), colored by class.
        split: held-out, all, or a split's name.
        k: Clusters; fewer where there are too few videos.
        kmeans_seeds: Times that k-means starts anew.
        device: auto, cpu, cuda, mps.
    """
    from looklisten.data.shards import Shards
    from looklisten.evaluation.units.clustering import SIDES, plane
    from looklisten.evaluation.units.clustering import cluster as run
    from looklisten.model.checkpoint import open_checkpoint
    from looklisten.system.devices import choose_device
    from looklisten.system.files import written_aside

    if out is not None:
        _check_writable_file(out)
    saved, data = open_checkpoint(checkpoint), Shards(shards)
    network, train = saved.model().to(choose_device(device).value), saved.config.train
    with Bar("cluster: clips") as bar:
        found = run(network, data, split, train.held_out_fraction, k, train.seed, kmeans_seeds, bar)
    if out is None:
        return found.as_dict()
    from looklisten.drawing.figures import planes

    titles = {
        side: f"{side}: NMI {found.row(side, 'trained').nmi:.3f}, {found.row(side, 'trained').n} items"
        for side in SIDES
    }
    with written_aside(out) as scratch:
        scratch.write_bytes(
            planes(
                [(titles[side], plane(found.vectors[side]), found.labels[side]) for side in SIDES]
            )
        )
    return found.as_dict() | {"picture": str(out)}


def localize(
    video: Positional[Path],
    /,
    checkpoint: str = "runs/tiny",
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("localized"),
    method: Literal["correspondence", "similarity", "unit"] | None = None,
    units: tuple[int, int] | None = None,
    every_seconds: float = 1.0,
    video_every_seconds: float = 0.2,
    no_video: bool = False,
    device: str = "auto",
) -> Result:
    """A video in which glows what sounds, over the picture and over the spectrogram; the maps as
    pictures and as arrays too.

    Args:
        video: A video with picture and sound.
        checkpoint: Folder of a run, of one checkpoint or of a published network, or a name on the
            Hugging Face Hub (org/name).
        out: Folder for overlay.mp4, sheet.png, NNN_frame.png, NNN_sound.png and maps.npz.
        method: correspondence (gradient of the network's yes), similarity (how alike each place and
            the sound are) or unit (where one unit fires). By default similarity of networks with
            fusion similarity or dense, correspondence of others.
        units: With unit: which vision and audio unit; by default those that fire most.
        every_seconds: Seconds between pictures.
        video_every_seconds: Seconds between the maps of overlay.mp4; in between they are mixed.
        no_video: Leave overlay.mp4 away, which takes most of the time; maps are then as far apart
            as pictures.
        device: auto, cpu, cuda, mps.
    """
    from looklisten.media.isolation.parent import warm_up

    warm_up()  # beside loading PyTorch, so that nobody waits for it
    from looklisten.drawing.overlay_video import overlay
    from looklisten.drawing.stills import localized, write_stills
    from looklisten.interop.loading import load_network
    from looklisten.system.devices import choose_device

    check_writable(out)
    model = load_network(checkpoint).to(choose_device(device).value)
    with Bar("localize: seconds") as bar:
        found, stills = localized(
            video,
            model,
            every_seconds,
            every_seconds if no_video else video_every_seconds,
            method,
            units,
            bar,
        )
    with Bar("localize: pictures") as bar:
        written = write_stills(found, stills, out, bar)
    if not no_video:
        with Bar("localize: seconds of overlay.mp4") as bar:
            written["video"] = str(overlay(video, found, out / "overlay.mp4", bar))
    sure = sum(one.probability for one in found) / len(found)
    return {
        "moments": len(found),
        "pictures": len(stills),
        "mean_probability": round(sure, 4),
    } | written


def units(
    network: Annotated[Positional[str], tyro.conf.arg(metavar="RUN")],
    shards: Annotated[Positional[str], tyro.conf.arg(metavar="SHARDS")],
    /,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("gallery.html"),
    top: int = 5,
    per_clip: int = 1,
    split: str = "held-out",
    device: str = "auto",
) -> Result:
    """What each unit of both towers looks and listens for: a page of the clips that fire it most,
    with maps, sounds and classes.

    Args:
        network: Folder of a run, of one checkpoint or of a published network, or a name on the
            Hugging Face Hub (org/name).
        shards: Folder that `prepare` wrote; labels name the units, and none are needed.
        out: The page, one HTML file that needs nothing else.
        top: Clips shown of each unit, each of another video.
        per_clip: Moments of each clip that are looked at; the one that fires a unit most stands for
            its video.
        split: held-out, all, or a split's name.
        device: auto, cpu, cuda, mps.
    """
    from looklisten.app.pages.unit_page import write_unit_page
    from looklisten.data.shards import Shards
    from looklisten.evaluation.units.clustering import clips_of
    from looklisten.evaluation.units.naming import units as run
    from looklisten.interop.loading import open_trained
    from looklisten.system.devices import choose_device

    _check_writable_file(out)
    saved, data = open_trained(network), Shards(shards)
    model, train = saved.model().to(choose_device(device).value), saved.config.train
    mask = clips_of(data, split, data.held_out(train.held_out_fraction))
    with Bar("units: clips") as bar:
        found = run(model, data, mask, top, per_clip, train.seed, bar)
    with Bar("units: moments drawn") as bar:
        return found.as_dict() | write_unit_page(out, found, model, data, bar)


def embed(
    inputs: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="INPUTS...")],
    /,
    checkpoint: str = "runs/tiny",
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("embedded"),
    modality: Literal["auto", "audio", "image", "video"] = "auto",
    layer: str | None = None,
    hop_seconds: float = 0.5,
    center: bool = False,
    normalize: bool = False,
    align: bool = False,
    dense: bool = False,
    format: Literal["npz", "parquet", "jsonl"] = "npz",
    overwrite: bool = False,
    precision: Literal["float32", "bfloat16"] = "float32",
    batch_size: int = 32,
    again: bool = False,
    stall_seconds: float = 120.0,
    memory_megabytes: int = 4096,
    device: str = "auto",
) -> Result:
    """Vectors of sounds, pictures and videos: a file of vectors and times for each. Run it again to
    finish or to add files.

    Args:
        inputs: Files, folders, globs, text lists or tables with a column path; folders are searched
            below too.
        checkpoint: Folder of a run or of one checkpoint.
        out: Folder for the vectors, in the structure of the inputs; a.wav gives a.wav.npz.
        modality: The sound (audio), the picture (image), both (video), or what a file has (auto).
        layer: pool4 (512 numbers), conv4_2 (6144 of sound, 8192 of pictures), aligned (128, of
            networks with fusion distance), texture (7680, of sound); by default pool4.
        hop_seconds: Seconds from one window of sound, or frame, to the next.
        center: Half a window of silence goes in front of a sound, so that windows have multiples of
            the hop in their middle.
        normalize: Vectors of length 1.
        align: Of videos: the sound's windows, and for each the frame nearest to its middle.
        dense: Sound in one run of the tower instead of one a window; fast for short hops, windows
            see beyond their borders.
        format: npz (arrays audio, vision and their start_seconds), parquet or jsonl (a row a
            vector).
        overwrite: Do again what is done.
        precision: Arithmetic; bfloat16 is faster where the processor has it.
        batch_size: Windows or frames computed at once on a GPU.
        again: Open files again that crashed the decoder in an earlier run.
        stall_seconds: A file that does not get on by a second for so long is given up.
        memory_megabytes: What decoding may take for one file.
        device: auto, cpu, cuda, mps.
    """
    from looklisten.media.isolation.parent import warm_up

    warm_up()  # beside loading PyTorch, so that nobody waits for it
    from looklisten.inference.embedding.files import Plan, embed_files
    from looklisten.inference.embedding.stream import How
    from looklisten.interop.loading import load_with_step
    from looklisten.media.isolation.process import SourceLimits
    from looklisten.system.devices import choose_device

    if not inputs:
        raise UsageError("embed needs files or folders: looklisten embed INPUTS... -o OUT")
    check_writable(out)
    how = How(layer, hop_seconds, center, normalize, dense, batch_size)
    limits = SourceLimits(stall_seconds=stall_seconds, memory_megabytes=memory_megabytes)
    model, step = load_with_step(checkpoint)
    plan = Plan(
        out, how, modality, align, format, overwrite, checkpoint, precision, step, again, limits
    )
    with Bar("embed: files") as bar:
        return embed_files(
            inputs,
            model.to(choose_device(device).value) if hasattr(model, "to") else model,
            plan,
            bar,
        )


def demo(
    out: Positional[Path] = Path("demo"),
    /,
    videos: int = 3000,
    seconds: float = 3.0,
    steps: int | None = None,
    seed: int = 0,
    fresh: bool = False,
    workers: int | None = None,
) -> Result:
    """The whole job on videos it makes itself, ending in report.html and results.json. Run again it
    resumes.

    Args:
        out: Folder for everything.
        videos: How many videos to make.
        seconds: Length of each.
        steps: Training steps; by default those of the recipe tiny.
        seed: Draws the world and the training.
        fresh: Start over: remove what an earlier demo left in the folder.
        workers: Processes; by default one a core.
    """
    from looklisten.app.demo import Plan, run

    check_writable(out)
    return run(Plan(out, videos, seconds, steps, seed), fresh=fresh, workers=workers)


def inspect(
    shards: Positional[str],
    /,
    pairs: int = 0,
    config: str = "tiny",
    seed: int = 0,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("pairs.html"),
) -> Result:
    """What a prepared set holds: clips, hours, pictures, labels, marks; with --pairs also a page of
    pairs as training sees them.

    Args:
        shards: Folder that `prepare` wrote.
        pairs: Show so many pairs on a page to look at and listen to, half of them positive.
        config: Recipe of the training whose pairs are shown: tiny, l3, or a TOML file.
        seed: The training's seed, which draws the pairs.
        out: The page.
    """
    from looklisten.data.inspection import inspect as run

    settings = Config.load(config)
    if pairs:
        _check_writable_file(out)
    with Bar("inspect: picture sizes") as bar:
        summary = run(shards, bar)
    if not pairs:
        return summary
    from looklisten.app.pages.pair_page import write_pair_page
    from looklisten.data.shards import Shards

    return summary | {
        "pairs": write_pair_page(out, Shards(shards), settings.changed("train", seed=seed), pairs)
    }


def export(
    network: Annotated[Positional[str], tyro.conf.arg(metavar="RUN")],
    out: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT")],
    /,
    format: Literal["safetensors", "onnx"] = "safetensors",
    side: Literal["audio", "vision", "both"] = "both",
    layer: Literal["pool4", "conv4_2", "aligned"] | None = None,
) -> Result:
    """Write the towers on their own, for other programs: weights with plain keys, or ONNX with the
    front end inside.

    Args:
        network: Folder of a run, of one checkpoint or of a published network, or a name on the
            Hugging Face Hub (org/name).
        out: Folder to write into.
        format: safetensors (audio, vision and full weights with a README on loading them) or onnx
            (checked against PyTorch).
        side: Which tower.
        layer: With onnx: which layer is the vector; by default pool4.
    """
    from looklisten.interop.export import export as run

    check_writable(out)
    return run(network, out, format, side, layer or "")


def publish(
    network: Annotated[Positional[str], tyro.conf.arg(metavar="RUN")],
    out: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT")],
    /,
    hub: str = "",
    private: bool = False,
) -> Result:
    """Write a network as a folder with a card of its own numbers, for others to load; with --hub
    upload it too.

    Args:
        network: Folder of a run, of one checkpoint or of a published network, or a name on the
            Hugging Face Hub (org/name).
        out: Folder to write config.json, model.safetensors and README.md into.
        hub: Name on the Hugging Face Hub (org/name) to upload it as.
        private: With --hub: nobody else may see it.
    """
    from looklisten.interop.publish import publish as run

    check_writable(out)
    return run(network, out, hub, private)


def openl3(arguments: Sequence[str]) -> Result:
    """Vectors of OpenL3's networks into .npz files, with OpenL3's own flags."""
    from looklisten.app.openl3 import run

    return run(arguments)


def convert(
    weights: Annotated[Positional[str], tyro.conf.arg(metavar="WEIGHTS.h5")],
    out: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT")],
    /,
) -> Result:
    """Turn a weight file of OpenL3 into a folder of safetensors and JSON that everything here
    reads.

    Args:
        weights: Keras file (.h5, .h5.gz) named as OpenL3 names it, or a published network such as
            openl3:audio-mel256-env.
        out: Folder to write.
    """
    from looklisten.interop.openl3 import convert as run

    check_writable(out)
    with Bar("weights: MB") as bar:
        return dict(run(weights, out, bar))


def doctor() -> Result:
    """What this installation can do and what is missing for what. Exit code 1 when a verb lacks
    something.
    """
    from looklisten.app.doctor import doctor as examine

    return examine()


VERBS: dict[str, Callable[..., Result]] = {
    "synth": synth,
    "table": table,
    "prepare": prepare,
    "inspect": inspect,
    "train": train_with("tiny"),
    "evaluate": evaluate,
    "baselines": baselines,
    "probe": probe,
    "cluster": cluster,
    "localize": localize,
    "units": units,
    "export": export,
    "publish": publish,
    "embed": embed,
    "demo": demo,
    "openl3": openl3,
    "convert": convert,
    "doctor": doctor,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    keep_freed_memory()
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given or not sys.stdout.isatty()
    given = [argument for argument in given if argument != "--json"]
    logging.basicConfig(
        level=logging.INFO if is_first_process() else logging.ERROR,
        format="%(message)s",
        handlers=[RichHandler(console=talk, show_time=False, show_path=False, show_level=False)],
    )
    logging.captureWarnings(True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, io.TextIOWrapper
        ):  # a name may hold what the terminal's encoding has not
            stream.reconfigure(errors="backslashreplace")
    if not given or given[0] in ("-h", "--help", "help"):
        _show_help()
        return 0
    if given[0] == "--version":
        from importlib.metadata import version

        Console(highlight=False).print(version("looklisten"))
        return 0
    try:
        return _run(given[0], given[1:], as_json)
    except UsageError as error:
        _say_error(str(error))
        return 2
    except LookListenError as error:
        return _say_error(str(error))
    except OSError as error:
        return _say_error(_explain(error))
    except KeyboardInterrupt:
        talk.print("stopped; the same command goes on from what is done", style="yellow")
        return INTERRUPTED


def _run(verb: str, arguments: list[str], as_json: bool) -> int:
    if verb not in VERBS:
        import difflib

        near = difflib.get_close_matches(verb, VERBS, 1)
        raise UsageError(
            f"there is no verb {verb!r}; "
            + (f"did you mean {near[0]}?" if near else f"the verbs are {', '.join(VERBS)}")
        )
    function = train_with(_value(arguments, "--config", "tiny")) if verb == "train" else VERBS[verb]
    if verb == "openl3":  # reads its flags itself
        result = function(arguments)
    else:
        result = tyro.cli(
            function,
            args=arguments,
            prog=f"looklisten {verb}",
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    if result:
        emit(result, as_json)
    return exit_code(result)


def exit_code(result: Result) -> int:
    """What a result says of itself: `failed` counts inputs that failed, `stopped_by` names a
    signal, `ready` is the doctor's yes or no.
    """
    if result.get("failed"):
        return SOME_FAILED
    if result.get("stopped_by"):
        talk.print(
            f"stopped by {result['stopped_by']} and saved; the same command goes on from there",
            style="yellow",
        )
        return INTERRUPTED
    return 0 if result.get("ready", True) else NOT_READY


def _value(arguments: list[str], option: str, default: str) -> str:
    """The value of an option that is needed before the others can be read."""
    for place, argument in enumerate(arguments):
        if argument == option and place + 1 < len(arguments):
            return arguments[place + 1]
        if argument.startswith(f"{option}="):
            return argument.partition("=")[2]
    return default


def emit(result: Result, as_json: bool) -> None:
    """The result on stdout: one line of JSON, or a table for people; of many processes the first
    one's.
    """
    if not is_first_process():
        return
    if as_json:
        sys.stdout.write(json.dumps(_plain(result)) + "\n")
        sys.stdout.flush()
        return
    console = Console(markup=False, emoji=False)  # a name in brackets is a name
    table = Table(show_header=False, box=None)
    for name, value in _flat(
        {key: value for key, value in result.items() if key not in TABULAR}
    ).items():
        table.add_row(name.replace("_", " "), value)
    console.print(table)
    for key in filter(result.get, TABULAR):
        console.print(_with_headings(result[key]))


def _with_headings(rows: Sequence[dict[str, Any]]) -> Table:
    """Records of one kind as a table, their fields' names above."""
    table = Table(box=None)
    for heading in rows[0] if rows else ():
        table.add_column(heading.replace("_", " "))
    for row in rows:
        table.add_row(
            *(
                _joined(list(value)) if isinstance(value, (list, tuple)) else _cell(value)
                for value in row.values()
            )
        )
    return table


def _plain(value: Any) -> Any:
    """Paths as text, no-number as null, so that the JSON is JSON."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _flat(result: Result, above: str = "") -> dict[str, str]:
    rows: dict[str, str] = {}
    for key, value in result.items():
        if isinstance(value, dict) and value:
            rows |= _flat(dict(list(value.items())[:TABLE_ENTRIES]), f"{above}{key} ")
            if len(value) > TABLE_ENTRIES:
                rows[f"{above}{key} …"] = (
                    f"and {len(value) - TABLE_ENTRIES:,} more (--json has all)"
                )
        elif (
            isinstance(value, (list, tuple))
            and value
            and all(isinstance(item, dict) for item in value)
        ):
            rows |= {
                f"{above}{key} {item['name']}": " · ".join(
                    _cell(v) for k, v in item.items() if k != "name"
                )
                for item in value
            }
        elif isinstance(value, (dict, list, tuple)):
            rows[above + key] = _joined(list(value))
        else:
            rows[above + key] = _cell(value)
    return rows


def _joined(items: Sequence[Any]) -> str:
    """Numbers as a range, words in a line, sentences under each other."""
    if not all(isinstance(item, str) for item in items):
        return " – ".join(_cell(item) for item in items)
    return ("\n" if any(" " in item for item in items) else ", ").join(items) or "none"


def _cell(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "–", True: "yes", False: "no"}[value]
    return (
        f"{value:,.4g}"
        if isinstance(value, float) and abs(value) < 1000
        else f"{value:,}"
        if isinstance(value, (int, float))
        else str(value)
    )


def _say_error(sentence: str) -> int:
    if not is_first_process():
        return 1
    talk.print(sentence, style="red", soft_wrap=True, markup=False)
    return 1


def _check_writable_file(file: Path) -> None:
    """The same for a file as `check_writable` for a folder."""
    if file.is_dir():
        raise UsageError(f"{shown(file)} is a folder; name a file")
    check_writable(file.parent)


def _explain(error: OSError) -> str:
    """An error of the system as a sentence: what was being done to which file, and what to do next."""
    name = shown(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" while writing {name}" if name else ""
        return f"the disk is full{where}; free some room and run the same command again, what is done is kept"
    if error.errno == errno.EROFS:
        return f"no permission while writing {name or 'a file'}: {error.strerror}; choose a folder that may be written"
    if error.errno in (errno.EACCES, errno.EPERM):
        if not name:
            return f"no permission to read or write: {error.strerror}; choose a folder that may be written"
        if _cannot_be_read(error.filename):
            return f"no permission while reading {name}: {error.strerror}; make it readable, or leave it out"
        return f"no permission while writing {name}: {error.strerror}; choose a folder that may be written"
    return f"{error.strerror or error}{f': {name}' if name else ''}"


def _cannot_be_read(path: str | bytes) -> bool:
    """Whether a file that is there, or a folder above it, refuses to be read."""
    place = Path(os.fsdecode(path))
    if os.path.lexists(place):
        return not os.access(place, os.R_OK | os.X_OK if place.is_dir() else os.R_OK)
    return place.parent.is_dir() and not os.access(place.parent, os.X_OK)


def _show_help() -> None:
    table = Table(show_header=False, box=None, padding=(0, 2))
    for verb, function in VERBS.items():
        doc = function.__doc__ or ""
        table.add_row(f"  {verb}", doc.strip().splitlines()[0])
    console = Console()
    console.print(
        "[bold]looklisten[/bold]: learns from unlabelled video with sound what looks and sounds alike\n"
    )
    console.print(table)
    console.print("\nlooklisten VERB --help tells the options; --json prints JSON on a screen too.")


if __name__ == "__main__":
    sys.exit(main())
