"""The verbs of the command line, one file each."""

from collections.abc import Callable

from looklisten.app.output import Result
from looklisten.app.verbs.baselines import baselines
from looklisten.app.verbs.cluster import cluster
from looklisten.app.verbs.convert import convert
from looklisten.app.verbs.demo import demo
from looklisten.app.verbs.doctor import doctor
from looklisten.app.verbs.embed import embed
from looklisten.app.verbs.evaluate import evaluate
from looklisten.app.verbs.export import export
from looklisten.app.verbs.inspect import inspect
from looklisten.app.verbs.localize import localize
from looklisten.app.verbs.openl3 import openl3
from looklisten.app.verbs.prepare import prepare
from looklisten.app.verbs.probe import probe
from looklisten.app.verbs.publish import publish
from looklisten.app.verbs.synth import synth
from looklisten.app.verbs.table import table
from looklisten.app.verbs.train import train_with
from looklisten.app.verbs.units import units

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
