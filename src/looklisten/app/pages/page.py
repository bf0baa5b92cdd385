"""HTML files that need nothing else: a template filled, pictures and sounds inside it. Knows no
result and no network.
"""

import base64
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from looklisten.system.files import atomic_write


def write_page(path: Path, template: str, **values: object) -> None:
    """Fill a template of this folder; the file is whole or absent."""
    text = fragment(template, **values)
    with atomic_write(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def fragment(template: str, **values: object) -> Markup:
    """A filled template of this folder, which another may take in as it is."""
    pages = Environment(
        loader=PackageLoader("looklisten.app.pages", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return Markup(pages.get_template(template).render(**values))  # noqa: S704 (escaped by the template)


def inline(data: bytes, kind: str) -> str:
    """The bytes of a file of the media type `kind` as an address that carries them."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
