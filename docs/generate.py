"""Writes the `--help` of every verb into docs/verbs.md, between the marks of each verb.

    python docs/generate.py

`tests/test_docs.py` fails when the page and the help differ.
"""

import contextlib
import io
import os
import re
import textwrap
from pathlib import Path

PAGE = Path(__file__).parent / "verbs.md"
COLUMNS = 100
BEGIN = "<!-- help of {verb}, written by docs/generate.py -->"
END = "<!-- end of help -->"


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


if __name__ == "__main__":
    PAGE.write_text(with_help(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
