"""Imports point down the tiers, only the app prints, and the words are those of the glossary."""

import ast
import functools
import re
from collections import defaultdict
from pathlib import Path

import pytest

import looklisten

ROOT = Path(looklisten.__file__).parent

TIERS = [
    {"__main__", "__init__"},
    {"app", "client"},
    {"serving"},
    {"drawing", "interop"},
    {"training"},
    {"evaluation"},
    {"search"},
    {"inference"},
    {"data", "model"},
    {"media"},
    {"cells", "config", "errors", "names", "option_checks", "system", "tables"},
]
"""From the top to the bottom: a package may import packages of lower tiers only."""

TIER_OF = {name: number for number, names in enumerate(TIERS) for name in names}
WITHIN_A_TIER = {
    ("config", "errors"),
    ("option_checks", "errors"),
    ("option_checks", "names"),
    ("system", "errors"),
    ("system", "names"),
    ("cells", "names"),
    ("tables", "cells"),
    ("tables", "errors"),
    ("tables", "names"),
}
"""Imports between packages of one tier that are allowed: (importing, imported)."""

PRINTING_FILES = {"app/cli.py", "app/output.py", "app/terminal.py"}


def python_files(folder=ROOT):
    return sorted(folder.rglob("*.py"))


@functools.cache
def syntax_tree(file):
    return ast.parse(file.read_text(encoding="utf-8"))


@pytest.fixture(scope="module", autouse=True)
def _free_syntax_trees():
    yield
    syntax_tree.cache_clear()


def relative(file):
    return file.relative_to(ROOT).as_posix()


def imported_packages(file):
    """The packages of looklisten that a file imports from, anywhere in it."""
    for node in ast.walk(syntax_tree(file)):
        modules = []
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        for module in modules:
            if module.startswith("looklisten."):
                yield module.split(".")[1]


def test_imports_point_down():
    wrong = []
    for file in python_files():
        package = file.relative_to(ROOT).parts[0].removesuffix(".py")
        for target in imported_packages(file):
            if target == package or (package, target) in WITHIN_A_TIER:
                continue
            if TIER_OF[target] <= TIER_OF[package]:
                wrong.append(f"{relative(file)} imports {target}")
    assert not wrong


def test_every_package_has_a_tier():
    packages = {
        path.name.removesuffix(".py")
        for path in ROOT.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert packages <= set(TIER_OF)


def test_only_the_app_prints():
    for file in python_files():
        if relative(file) in PRINTING_FILES:
            continue
        for node in ast.walk(syntax_tree(file)):
            called = node.func if isinstance(node, ast.Call) else None
            assert not (isinstance(called, ast.Name) and called.id == "print"), file
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "sys"
            ):
                assert node.attr not in ("stdout", "stderr"), file


def test_media_and_data_import_no_model_and_model_imports_no_data():
    forbidden = {"media": {"model", "data"}, "data": {"model"}, "model": {"data"}}
    for package, targets in forbidden.items():
        for file in python_files(ROOT / package):
            assert not set(imported_packages(file)) & targets, file


def test_only_the_model_knows_the_kinds_of_fusions():
    """Others ask a fusion for its properties, so that a new kind is one class."""
    kinds = set()
    for name in ("vectors.py", "positions.py"):
        kinds |= set(public_names(syntax_tree(ROOT / "model" / "fusions" / name)))
    kinds = {name for name in kinds if name.endswith("Fusion")} - {"Fusion"}
    assert len(kinds) >= 4
    for file in python_files():
        if relative(file).startswith("model/fusions/"):
            continue
        names = {node.id for node in ast.walk(syntax_tree(file)) if isinstance(node, ast.Name)}
        assert not names & kinds, relative(file)


def test_public_names_exist_and_have_docstrings():
    for name in looklisten.__all__:
        assert getattr(looklisten, name).__doc__, name


def test_no_pickle_is_ever_loaded():
    text = "".join(file.read_text(encoding="utf-8") for file in python_files())
    loads = re.findall(r"torch\.load\(.*", text)
    # weights_only: tensors alone, so that no code of a file can run.
    assert all("weights_only=True)" in load for load in loads)
    assert "import pickle" not in text
    assert "pickle.load" not in text


def public_names(tree):
    """The public names that a module defines at its top level."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        else:
            names = []
        yield from (name for name in names if not name.startswith("_"))


def test_a_public_name_is_defined_in_one_module():
    homes = defaultdict(set)
    for file in python_files():
        for name in public_names(syntax_tree(file)):
            homes[name].add(relative(file))
    # Each program has its own: the command line, and the worker processes.
    del homes["main"]
    # `openl3.load` is for OpenL3 what `ll.load` is for all networks.
    del homes["load"]
    several = {name: sorted(files) for name, files in homes.items() if len(files) > 1}
    assert not several


PRIVATE_WORDS = (
    "contender",
    "contenders",
    "diary",
    "film",
    "films",
    "glow",
    "glowing",
    "glows",
    "haste",
    "hush",
    "keeper",
    "manieth",
    "neighbour",
    "neighbours",
    "labelled",
    "learnt",
    "rival",
    "rivals",
    "told",
    "unlabelled",
    "untold",
)
"""Words that have a standard word in docs/glossary.md, and British spellings."""

PRIVATE_PHRASES = ("by heart", "gone on with", "leave away", "leaves away", "stands by")

VAGUE_NAMES = (
    "about",
    "asked",
    "drawn",
    "far",
    "found",
    "given",
    "heard",
    "held",
    "how",
    "kept",
    "made",
    "mine",
    "one",
    "ours",
    "piece",
    "pieces",
    "place",
    "places",
    "rest",
    "said",
    "seen",
    "shown",
    "some",
    "sure",
    "thing",
    "things",
    "told",
    "wanted",
    "what",
    "whole",
    "wrong",
)
"""Names that do not say what is inside."""


def bound_names(tree):
    """The names of variables, arguments, functions and classes, each with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name, node.lineno


def test_no_private_word_comes_back():
    uses = []
    for file in python_files():
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            words = set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", line).lower()))
            private = words & set(PRIVATE_WORDS)
            private |= {phrase for phrase in PRIVATE_PHRASES if phrase in line.lower()}
            uses += [f"{relative(file)}:{number}: {word}" for word in sorted(private)]
    assert not uses


def test_names_say_what_is_inside():
    uses = []
    for file in python_files():
        for name, line in bound_names(syntax_tree(file)):
            if name.strip("_").lower() in VAGUE_NAMES:
                uses.append(f"{relative(file)}:{line}: {name}")
    assert not uses
