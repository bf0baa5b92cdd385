"""HTML files that need no other file: filled templates with images and sounds inside them.

Knows no result and no network.
"""

import base64
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from looklisten.system.files import atomic_write


def write_page(path: Path, template: str, **values: object) -> None:
    """Fill a template of this folder; the file is complete or absent."""
    # Filled before the file is opened, so that an error in a template keeps the old page.
    text = fill_template(template, **values)
    with atomic_write(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def fill_template(template: str, **values: object) -> Markup:
    """A filled template of this folder, which another template can include as it is."""
    environment = Environment(
        loader=PackageLoader("looklisten.app.pages", "."),
        autoescape=True,
        # A misspelled value is an error, not an empty place on the page.
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filled = environment.get_template(template).render(**values)
    return Markup(filled)  # noqa: S704 (escaped by the template)


def data_url(data: bytes, media_type: str) -> str:
    """A URL that contains the bytes of a file."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
