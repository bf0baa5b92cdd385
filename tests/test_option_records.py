"""Option records and the keywords of the functions that people call have the same fields."""

import dataclasses
import subprocess
import sys
from typing import get_type_hints

import pytest

from looklisten.inference.embedding.options import EmbedChoices, EmbedOptions
from looklisten.inference.localization.options import LocalizeChoices, LocalizeOptions


@pytest.mark.parametrize(
    ("record", "choices"), [(EmbedOptions, EmbedChoices), (LocalizeOptions, LocalizeChoices)]
)
def test_keywords_are_the_fields_of_the_record(record, choices):
    assert get_type_hints(choices) == get_type_hints(record)
    assert list(get_type_hints(choices)) == [field.name for field in dataclasses.fields(record)]


def test_options_import_neither_torch_nor_numpy():
    program = (
        "import sys, looklisten.inference.embedding.options, "
        "looklisten.inference.localization.options\n"
        "print(sorted({'torch', 'numpy', 'av'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert result.stdout.strip() == "[]"
