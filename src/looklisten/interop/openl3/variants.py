"""Which networks OpenL3 published, under which names, and the git blob id of each file. Facts;
opens nothing.

The ids are those of branch `models` of github.com/marl/openl3 (weights under CC BY 4.0).
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from looklisten.interop.openl3.errors import OpenL3Error
from looklisten.model.networks import OPENL3_PREFIX

Side = Literal["audio", "vision"]
InputRepr = Literal["linear", "mel128", "mel256"]
ContentType = Literal["music", "env"]

VERSION = "v0_4_0"
"""Of the published files: those that OpenL3 0.4.0 to 0.4.2 use."""

WORDS: dict[Side, str] = {"audio": "audio", "vision": "image"}
"""What OpenL3 calls the two sides."""

BLOBS = {
    "openl3_audio_linear_env": "7837407f033f3564c7e8d53fc4a4241fe160478b",
    "openl3_audio_linear_music": "4e2e61beb17865481c8b8791c72eac8307e2753a",
    "openl3_audio_mel128_env": "8c3dfee140f7776373841e5938a3e76c54f28942",
    "openl3_audio_mel128_music": "73ff29de441865318c4b3a3f98c40763c4773e7c",
    "openl3_audio_mel256_env": "34dbd7a91cdd2de6a3d6d036ac0a24d27d78e3cc",
    "openl3_audio_mel256_music": "15e483646fa3d4091a463f0affbb706e6bbbb098",
    "openl3_image_linear_env": "a1e527ad5367efb19b18cd051523bf3fadd02feb",
    "openl3_image_linear_music": "7ccfc16536bff5f46902df6d7f89075f1bfce8bb",
    "openl3_image_mel128_env": "680c5d4adffc2b0d7b789913a2e9ebccd469be55",
    "openl3_image_mel128_music": "c287c5f9bc949595ff4fda83177bcc98142601e9",
    "openl3_image_mel256_env": "dbdf24a7e837267487adb3eed1586fcd2e37d775",
    "openl3_image_mel256_music": "67bf0b891eb4fb797defafa5b3edc3c75f3cd6ee",
}
"""Of `NAME-v0_4_0.h5.gz`, by the name."""


@dataclass(frozen=True)
class Variant:
    """One network of OpenL3: a side, the spectrogram that it was trained with, and what it was
    trained on.
    """

    side: Side
    input_repr: InputRepr
    content_type: ContentType | None = None
    """None where a file's name does not tell."""

    @property
    def name(self) -> str:
        """As in `openl3:audio-mel256-env`."""
        return "-".join(
            [WORDS[self.side], self.input_repr, *([self.content_type] if self.content_type else [])]
        )

    @property
    def stem(self) -> str:
        """As in `openl3_audio_mel256_env.h5`."""
        return "openl3_" + self.name.replace("-", "_")


def variant(side: Side, input_repr: str, content_type: str | None) -> Variant:
    """A network by OpenL3's words for it; raises OpenL3Error for a word that it has not."""
    if input_repr not in get_args(InputRepr):
        raise OpenL3Error(
            f"there is no input representation {input_repr!r}; there are {', '.join(get_args(InputRepr))}"
        )
    if content_type is not None and content_type not in get_args(ContentType):
        raise OpenL3Error(
            f"there is no content type {content_type!r}; there are {', '.join(get_args(ContentType))}"
        )
    return Variant(side, cast(InputRepr, input_repr), cast(ContentType | None, content_type))


_PATTERN = re.compile(r"(audio|image)[-_](linear|mel128|mel256)(?:[-_](music|env))?(?![a-z0-9])")


def variant_of_file(path: Path) -> Variant | None:
    """The network that a file name tells of, as OpenL3 names its files; None when it tells of none."""
    found = _PATTERN.search(path.name)
    if not found:
        return None
    word, input_repr, content_type = found.groups()
    return variant("audio" if word == "audio" else "vision", input_repr, content_type)


def variant_named(name: str) -> Variant:
    """The published network `openl3:audio-mel256-env`; raises OpenL3Error, one sentence, for a name
    that is none.
    """
    found = _PATTERN.fullmatch(name.removeprefix(OPENL3_PREFIX))
    if not found or not found[3]:
        names = "audio or image, then linear, mel128 or mel256, then music or env"
        raise OpenL3Error(
            f"{name} is no network that OpenL3 published; a name is {OPENL3_PREFIX} and {names}, such as {OPENL3_PREFIX}audio-mel256-env"
        )
    word, input_repr, content_type = found.groups()
    return variant("audio" if word == "audio" else "vision", input_repr, content_type)
