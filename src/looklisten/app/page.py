"""HTML files that need nothing else: a template filled, pictures and sounds inside it. Knows no result and no network."""

import base64
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from looklisten.runtime import written_aside


def write_page(path: Path, template: str, **values: object) -> None:
    """Fill a template of this folder; the file is whole or absent."""
    pages = Environment(
        loader=PackageLoader("looklisten.app", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = pages.get_template(template).render(**values)
    with written_aside(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def inline(data: bytes, kind: str) -> str:
    """The bytes of a file of the media type `kind` as an address that carries them."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
