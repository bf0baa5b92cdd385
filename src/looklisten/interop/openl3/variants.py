"""The networks that OpenL3 published: their names, their files and the git blob id of each file.

The ids are those of branch `models` of github.com/marl/openl3 (weights under CC BY 4.0). Opens no
file.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from looklisten.config import Side
from looklisten.interop.openl3.errors import OpenL3Error
from looklisten.model.networks import OPENL3_PREFIX

InputRepr = Literal["linear", "mel128", "mel256"]
ContentType = Literal["music", "env"]

VERSION = "v0_4_0"
"""The version in the names of the published files, which OpenL3 0.4.0 to 0.4.2 use."""

OPENL3_SIDES: dict[Side, str] = {"audio": "audio", "vision": "image"}
"""OpenL3's names of the two sides."""

BLOB_IDS = {
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
"""The git blob id of the published file `NAME-v0_4_0.h5.gz`, by the name."""


@dataclass(frozen=True)
class Variant:
    """One network of OpenL3: its side, the spectrogram of its training, and the training data."""

    side: Side
    input_repr: InputRepr
    content_type: ContentType | None = None
    """None if the name of a weight file does not say it."""

    @property
    def name(self) -> str:
        """The name without prefix, such as `audio-mel256-env`."""
        words = [OPENL3_SIDES[self.side], self.input_repr]
        if self.content_type:
            words.append(self.content_type)
        return "-".join(words)

    @property
    def stem(self) -> str:
        """The name of the weight file without suffix, such as `openl3_audio_mel256_env`."""
        return "openl3_" + self.name.replace("-", "_")


def variant(side: Side, input_repr: str, content_type: str | None) -> Variant:
    """A network by OpenL3's parameters. Raises OpenL3Error for an unknown value."""
    known_reprs = get_args(InputRepr)
    known_types = get_args(ContentType)
    if input_repr not in known_reprs:
        raise OpenL3Error(
            f"there is no input representation {input_repr!r}; there are {', '.join(known_reprs)}"
        )
    if content_type is not None and content_type not in known_types:
        raise OpenL3Error(
            f"there is no content type {content_type!r}; there are {', '.join(known_types)}"
        )
    return Variant(side, cast(InputRepr, input_repr), cast(ContentType | None, content_type))


_NAME = re.compile(r"(audio|image)[-_](linear|mel128|mel256)(?:[-_](music|env))?(?![a-z0-9])")


def variant_of_file(path: Path) -> Variant | None:
    """The network that a file name means, as OpenL3 names its files; None for other names."""
    match = _NAME.search(path.name)
    return _variant_of_match(match) if match else None


def variant_named(name: str) -> Variant:
    """The published network `openl3:audio-mel256-env`. Raises OpenL3Error for an unknown name."""
    match = _NAME.fullmatch(name.removeprefix(OPENL3_PREFIX))
    if not match or not match[3]:  # the content type, which only the name of a file may omit
        raise OpenL3Error(
            f"{name} is no network that OpenL3 published; a name is {OPENL3_PREFIX} and "
            "audio or image, then linear, mel128 or mel256, then music or env, "
            f"such as {OPENL3_PREFIX}audio-mel256-env"
        )
    return _variant_of_match(match)


def _variant_of_match(match: re.Match[str]) -> Variant:
    openl3_side, input_repr, content_type = match.groups()
    return variant("audio" if openl3_side == "audio" else "vision", input_repr, content_type)
