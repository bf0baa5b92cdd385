"""Writes what documents repeat from the code.

    python docs/generate.py

The `--help` of every verb goes into docs/verbs.md. The tree of modules goes into README.md, with
the first sentence of each module. `tests/test_docs.py` fails when a page and the code differ.
"""

import ast
import contextlib
import functools
import io
import os
import re
import textwrap
from pathlib import Path

PAGE = Path(__file__).parent / "verbs.md"
README = Path(__file__).parents[1] / "README.md"
PACKAGE = README.parent / "src" / "looklisten"
COLUMNS = 100
BEGIN = "<!-- help of {verb}, written by docs/generate.py -->"
END = "<!-- end of help -->"
BEGIN_TREE = "<!-- tree of modules, written by docs/generate.py -->"
END_TREE = "<!-- end of tree -->"
NAME_COLUMNS = 26


def help_of(verb: str) -> str:
    """What `looklisten VERB --help` prints, without rules and colors and of a fixed width."""
    from looklisten.app.cli import main

    before = dict(os.environ)
    os.environ |= {"COLUMNS": str(COLUMNS), "NO_COLOR": "1", "TERM": "dumb"}
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main([verb, "--help"])
    finally:
        os.environ.clear()
        os.environ |= before
    return plain_text(printed.getvalue())


def plain_text(text: str) -> str:
    """The text without the rules that tyro draws, and with lines of at most COLUMNS columns."""
    lines = []
    for line in map(str.rstrip, text.splitlines()):
        if re.fullmatch(r" *[-─]{20,}", line):
            continue
        if len(line) > COLUMNS:
            # The description of a verb is printed as one line per paragraph.
            lines.extend(textwrap.wrap(line, COLUMNS))
        elif re.match(r" \S", line):
            lines.append(line[1:])
        else:
            lines.append(line)
    return "\n".join(lines).strip()


def with_help(page: str) -> str:
    """The page with the help of each verb between its marks; raises ValueError if marks lack."""
    from looklisten.app.verbs import VERBS

    for verb in VERBS:
        begin = BEGIN.format(verb=verb)
        pattern = re.compile(rf"{re.escape(begin)}\n.*?{re.escape(END)}", re.DOTALL)
        summary = f"<details><summary>looklisten {verb} --help</summary>"
        block = f"{begin}\n{summary}\n\n```text\n{help_of(verb)}\n```\n\n</details>\n{END}"
        if len(pattern.findall(page)) != 1:
            raise ValueError(f"{PAGE} needs once: {begin} … {END}")
        start, end = pattern.search(page).span()
        page = page[:start] + block + page[end:]
    return page


@functools.cache
def first_sentence(module: Path) -> str:
    """The first sentence of a module's docstring, on one line."""
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.partition("\n\n")[0].split())
    # A full stop ends the sentence, but not the one of "et al.".
    return re.split(r"(?<=[.?!])(?<! al\.)\s", paragraph)[0].removesuffix(".")


def tree(folder: Path = PACKAGE, depth: int = 1) -> list[str]:
    """A line for each module and package in and below `folder`: its name and what it is."""
    lines = []
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        indent = "  " * depth
        if path.suffix == ".py" and path.name != "__init__.py":
            lines.append(f"{indent + path.name:{NAME_COLUMNS}} {first_sentence(path)}")
        elif (path / "__init__.py").exists():
            name = f"{indent}{path.name}/"
            lines.append(f"{name:{NAME_COLUMNS}} {first_sentence(path / '__init__.py')}")
            lines.extend(tree(path, depth + 1))
    return lines


def with_tree(page: str) -> str:
    """The page with the tree of modules between its marks; raises ValueError if marks lack."""
    before, begin, rest = page.partition(BEGIN_TREE)
    _, end, after = rest.partition(END_TREE)
    if not end:
        raise ValueError(f"{README} needs: {BEGIN_TREE} … {END_TREE}")
    lines = "\n".join(["src/looklisten/", *tree()])
    return f"{before}{begin}\n\n```text\n{lines}\n```\n\n{end}{after}"


if __name__ == "__main__":
    README.write_text(with_tree(README.read_text(encoding="utf-8")), encoding="utf-8")
    PAGE.write_text(with_help(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
