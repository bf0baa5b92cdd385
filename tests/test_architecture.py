"""Imports point down the floors of the house; only the shell prints; every name has one home."""

import ast
from pathlib import Path

import looklisten

ROOT = Path(looklisten.__file__).parent
FLOORS = [
    {"__main__", "__init__"},
    {"app"},
    {"drawing", "interop"},
    {"training"},
    {"evaluation"},
    {"inference"},
    {"data", "model"},
    {"media"},
    {"config", "errors", "names", "system", "tables"},
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
BESIDE = {
    ("config", "errors"),
    ("system", "errors"),
    ("system", "names"),
    ("tables", "errors"),
    ("tables", "names"),
}
TALKERS = {"app/cli.py", "app/output.py", "app/terminal.py"}


def imports(file):
    """The rooms that a file imports from, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.startswith("looklisten.")
        ):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (
                alias.name.split(".")[1]
                for alias in node.names
                if alias.name.startswith("looklisten.")
            )


def test_imports_point_down():
    wrong = []
    for file in ROOT.rglob("*.py"):
        room = file.relative_to(ROOT).parts[0].removesuffix(".py")
        for target in imports(file):
            if target != room and FLOOR[target] <= FLOOR[room] and (room, target) not in BESIDE:
                wrong.append(f"{file.relative_to(ROOT)} imports {target}")
    assert not wrong


def test_every_room_has_a_floor():
    rooms = {
        path.name.removesuffix(".py")
        for path in ROOT.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert rooms <= set(FLOOR)


def test_only_the_shell_prints():
    for file in ROOT.rglob("*.py"):
        if str(file.relative_to(ROOT)) in TALKERS:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            assert not (isinstance(called, ast.Name) and called.id == "print"), file
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "sys"
            ):
                assert node.attr not in ("stdout", "stderr"), file


def test_media_and_data_know_no_model_and_model_knows_no_file_format():
    for room, forbidden in (("media", {"model", "data"}), ("data", {"model"}), ("model", {"data"})):
        for file in (ROOT / room).rglob("*.py"):
            assert not set(imports(file)) & forbidden, file


def test_public_names_are_there():
    for name in looklisten.__all__:
        assert getattr(looklisten, name).__doc__, name


def test_no_pickle_is_ever_loaded():
    text = "".join(file.read_text(encoding="utf-8") for file in ROOT.rglob("*.py"))
    assert "torch.load" not in text
    assert "import pickle" not in text
