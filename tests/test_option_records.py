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


def test_a_word_that_is_no_choice_is_refused_by_name():
    """Checked without the type checker of the tests, as in a user's program."""
    program = (
        "from looklisten.errors import OptionError\n"
        "from looklisten.search.options import SearchOptions\n"
        "from looklisten.inference.embedding.options import EmbedOptions\n"
        "from looklisten.inference.localization.options import LocalizeOptions\n"
        "for make in (lambda: SearchOptions(find='x'), lambda: SearchOptions(by='x'),\n"
        "    lambda: EmbedOptions(precision='half'), lambda: LocalizeOptions(method='x')):\n"
        "    try: make()\n"
        "    except OptionError as error: print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert result.stdout.splitlines() == [
        "find 'x' must be sound, picture or both",
        "by 'x' must be auto, sound or picture",
        "precision 'half' must be float32 or bfloat16",
        "method 'x' must be unit, correspondence or similarity",
    ]


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
