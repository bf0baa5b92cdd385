"""looklisten: learns from unlabelled video with sound what looks and sounds alike (Look, Listen and Learn, ICCV 2017).

import looklisten as ll

ll.prepare(["videos"], "shards")
ll.train("shards", ll.Config.load("tiny"), "runs/mine")
model = ll.load("runs/mine")
for moment in ll.localize("clip.mp4", model):
    print(moment.at_seconds, moment.probability, moment.frame_map.peak())
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from looklisten.config import Config
    from looklisten.data.cutting import PrepareSettings
    from looklisten.data.inspection import inspect
    from looklisten.data.pairs import PairBatch
    from looklisten.data.prepare import prepare
    from looklisten.data.shards import Box, Clip, Shards
    from looklisten.errors import LookListenError
    from looklisten.evaluation.benchmarks import Benchmark, open_benchmark
    from looklisten.evaluation.clustering import Clustering, cluster
    from looklisten.evaluation.correspondence import Correspondence, evaluate
    from looklisten.evaluation.localization import LocalizationTable, Pointing, localization, pointing
    from looklisten.evaluation.named_units import Coverage, Unit, Units, units
    from looklisten.evaluation.probe import Probe, probe
    from looklisten.evaluation.set_probe import SetProbe, probe_set
    from looklisten.inference.embed import embed
    from looklisten.inference.embedder import Embedder
    from looklisten.inference.embeddings import AlignedEmbeddings, Embeddings
    from looklisten.inference.localize import HeatMap, Localization, localize
    from looklisten.inference.overlay import overlay
    from looklisten.inference.streaming import StreamingEmbedder
    from looklisten.inference.transformers import AudioEmbedder, ImageEmbedder
    from looklisten.inference.units import Firing
    from looklisten.interop.export import export
    from looklisten.interop.loading import from_pretrained, load
    from looklisten.interop.openl3.models import convert
    from looklisten.interop.publish import publish, push_to_hub, save_pretrained
    from looklisten.media.synth.collage import Collage
    from looklisten.media.synth.world import World, synth
    from looklisten.model.l3net import L3Net
    from looklisten.training.baselines import BaselineTable, baselines
    from looklisten.training.loop import Run, train

_HOME = {
    "config": ("Config",),
    "data.inspection": ("inspect",),
    "data.pairs": ("PairBatch",),
    "data.cutting": ("PrepareSettings",),
    "data.prepare": ("prepare",),
    "data.shards": ("Box", "Clip", "Shards"),
    "errors": ("LookListenError",),
    "evaluation.clustering": ("Clustering", "cluster"),
    "evaluation.correspondence": ("Correspondence", "evaluate"),
    "evaluation.named_units": ("Coverage", "Unit", "Units", "units"),
    "evaluation.localization": ("LocalizationTable", "Pointing", "localization", "pointing"),
    "evaluation.probe": ("Probe", "probe"),
    "inference.embed": ("embed",),
    "inference.embedder": ("Embedder",),
    "inference.embeddings": ("AlignedEmbeddings", "Embeddings"),
    "evaluation.benchmarks": ("Benchmark", "open_benchmark"),
    "evaluation.set_probe": ("SetProbe", "probe_set"),
    "inference.localize": ("HeatMap", "Localization", "localize"),
    "inference.overlay": ("overlay",),
    "media.synth.collage": ("Collage",),
    "interop.export": ("export",),
    "interop.loading": ("from_pretrained", "load"),
    "interop.publish": ("publish", "push_to_hub", "save_pretrained"),
    "interop.openl3.models": ("convert",),
    "inference.streaming": ("StreamingEmbedder",),
    "inference.transformers": ("AudioEmbedder", "ImageEmbedder"),
    "inference.units": ("Firing",),
    "media.synth.world": ("World", "synth"),
    "model.l3net": ("L3Net",),
    "training.baselines": ("BaselineTable", "baselines"),
    "training.loop": ("Run", "train"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "AlignedEmbeddings",
    "AudioEmbedder",
    "BaselineTable",
    "Benchmark",
    "Box",
    "Clip",
    "Clustering",
    "Collage",
    "Config",
    "Correspondence",
    "Coverage",
    "Embedder",
    "Embeddings",
    "Firing",
    "HeatMap",
    "ImageEmbedder",
    "L3Net",
    "Localization",
    "LocalizationTable",
    "LookListenError",
    "PairBatch",
    "Pointing",
    "PrepareSettings",
    "Probe",
    "Run",
    "SetProbe",
    "Shards",
    "StreamingEmbedder",
    "Unit",
    "Units",
    "World",
    "baselines",
    "cluster",
    "convert",
    "embed",
    "evaluate",
    "export",
    "from_pretrained",
    "inspect",
    "load",
    "localization",
    "localize",
    "open_benchmark",
    "overlay",
    "pointing",
    "prepare",
    "probe",
    "probe_set",
    "publish",
    "push_to_hub",
    "save_pretrained",
    "synth",
    "train",
    "units",
]


def __getattr__(name: str) -> Any:
    """Public names are imported when first asked for, so that worker processes and `--help` do not wait for PyTorch."""
    if name not in _MODULE:
        raise AttributeError(f"module 'looklisten' has no attribute {name!r}")
    return getattr(importlib.import_module(f"looklisten.{_MODULE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
