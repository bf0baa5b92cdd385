"""The verbs of the command line, one file each.

Importing them imports neither torch nor numpy: a verb imports the library when it runs.
"""

from looklisten.app.command_line import Verb
from looklisten.app.verbs.adapt import run_adapt
from looklisten.app.verbs.baselines import run_baselines
from looklisten.app.verbs.cluster import run_cluster
from looklisten.app.verbs.convert import run_convert
from looklisten.app.verbs.demo import run_demo
from looklisten.app.verbs.doctor import run_doctor
from looklisten.app.verbs.embed import run_embed
from looklisten.app.verbs.evaluate import run_evaluate
from looklisten.app.verbs.export import run_export
from looklisten.app.verbs.inspect import run_inspect
from looklisten.app.verbs.localize import run_localize
from looklisten.app.verbs.models import run_models
from looklisten.app.verbs.openl3 import OPENL3
from looklisten.app.verbs.prepare import run_prepare
from looklisten.app.verbs.probe import run_probe
from looklisten.app.verbs.publish import run_publish
from looklisten.app.verbs.synth import run_synth
from looklisten.app.verbs.table import run_table
from looklisten.app.verbs.train import TRAIN
from looklisten.app.verbs.units import run_units

VERBS: dict[str, Verb] = {}
"""All verbs by name, in the order in which `looklisten --help` lists them."""


def register(verb: Verb) -> None:
    """Add a verb to the command line, or replace the one of the same name."""
    VERBS[verb.name] = verb


register(Verb.of("synth", run_synth))
register(Verb.of("table", run_table))
register(Verb.of("prepare", run_prepare))
register(Verb.of("inspect", run_inspect))
register(TRAIN)
register(Verb.of("adapt", run_adapt))
register(Verb.of("evaluate", run_evaluate))
register(Verb.of("baselines", run_baselines))
register(Verb.of("probe", run_probe))
register(Verb.of("cluster", run_cluster))
register(Verb.of("localize", run_localize))
register(Verb.of("units", run_units))
register(Verb.of("export", run_export))
register(Verb.of("publish", run_publish))
register(Verb.of("embed", run_embed))
register(Verb.of("demo", run_demo))
register(OPENL3)
register(Verb.of("convert", run_convert))
register(Verb.of("models", run_models))
register(Verb.of("doctor", run_doctor))
