"""The verbs of the command line, one file each, in folders by the part of the package they use.

Importing them imports neither torch nor numpy: a verb imports the library when it runs.
"""

from looklisten.app.command_line import Verb
from looklisten.app.verbs.data.inspect import run_inspect
from looklisten.app.verbs.data.prepare import run_prepare
from looklisten.app.verbs.data.synth import run_synth
from looklisten.app.verbs.data.table import run_table
from looklisten.app.verbs.evaluation.cluster import run_cluster
from looklisten.app.verbs.evaluation.evaluate import run_evaluate
from looklisten.app.verbs.evaluation.probe import run_probe
from looklisten.app.verbs.evaluation.sync import run_sync
from looklisten.app.verbs.inference.embed import run_embed
from looklisten.app.verbs.inference.localize import run_localize
from looklisten.app.verbs.inference.units import run_units
from looklisten.app.verbs.interop.convert import run_convert
from looklisten.app.verbs.interop.export import run_export
from looklisten.app.verbs.interop.models import run_models
from looklisten.app.verbs.interop.openl3 import OPENL3
from looklisten.app.verbs.interop.publish import run_publish
from looklisten.app.verbs.search.export_index import run_export_index
from looklisten.app.verbs.search.index import run_index
from looklisten.app.verbs.search.search import run_search
from looklisten.app.verbs.search.tag import run_tag
from looklisten.app.verbs.serving.serve import run_serve
from looklisten.app.verbs.system.doctor import run_doctor
from looklisten.app.verbs.training.adapt import run_adapt
from looklisten.app.verbs.training.baselines import run_baselines
from looklisten.app.verbs.training.demo import run_demo
from looklisten.app.verbs.training.train import TRAIN

VERBS: dict[str, Verb] = {}
"""All verbs by name, in the order in which `looklisten --help` lists them."""


def register(verb: Verb) -> None:
    """Add a verb to the command line, or replace the one of the same name."""
    VERBS[verb.name] = verb


register(Verb.of("synth", run_synth, can_continue=True))
register(Verb.of("table", run_table))
register(Verb.of("prepare", run_prepare, can_continue=True))
register(Verb.of("inspect", run_inspect))
register(TRAIN)
register(Verb.of("adapt", run_adapt, can_continue=True))
register(Verb.of("evaluate", run_evaluate))
register(Verb.of("baselines", run_baselines, can_continue=True))
register(Verb.of("probe", run_probe, can_continue=True))
register(Verb.of("cluster", run_cluster))
register(Verb.of("localize", run_localize))
register(Verb.of("sync", run_sync))
register(Verb.of("units", run_units))
register(Verb.of("export", run_export))
register(Verb.of("publish", run_publish))
register(Verb.of("embed", run_embed, can_continue=True))
register(Verb.of("index", run_index, can_continue=True))
register(Verb.of("search", run_search))
register(Verb.of("tag", run_tag))
register(Verb.of("export-index", run_export_index))
register(Verb.of("serve", run_serve))
register(Verb.of("demo", run_demo, can_continue=True))
register(OPENL3)
register(Verb.of("convert", run_convert))
register(Verb.of("models", run_models))
register(Verb.of("doctor", run_doctor))
