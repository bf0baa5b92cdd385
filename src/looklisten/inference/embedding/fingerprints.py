"""What vectors were made of: which network, which choices, which bytes. So that "done" is no matter
of a file's name alone.

Knows digests and file dates; no format of vectors.
"""

import dataclasses
import hashlib
import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from looklisten.inference.encoder import Encoder, NetworkEncoder
from looklisten.model.l3net import L3Net


def network_sha256(encoder: Encoder, name: str = "") -> str:
    """A digest of a network's weights and settings, the same wherever they were loaded from: a run,
    a published folder, the Hub.

    An encoder that holds no weights of PyTorch is known by its class and `name`.
    """
    network: Any = encoder.model if isinstance(encoder, NetworkEncoder) else encoder
    digest = hashlib.sha256(
        json.dumps(_settings(network, name), sort_keys=True, default=str).encode()
    )
    if isinstance(network, nn.Module):
        for key, tensor in sorted(network.state_dict().items()):
            values = tensor.detach().cpu().contiguous()
            digest.update(f"{key} {values.dtype} {list(values.shape)}".encode())
            # Bytes, since NumPy has no bfloat16; `reshape`, since a number alone has no last axis.
            digest.update(values.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _settings(network: Any, name: str) -> dict[str, Any]:
    """What changes the vectors and is no weight. Defaults are left out, so that a new setting does
    not make another network.
    """
    if isinstance(network, L3Net):
        return network.config.model_dump(mode="json", exclude_defaults=True)
    own: dict[str, Any] = {"class": type(network).__qualname__}
    if not isinstance(network, nn.Module):
        return own | {"name": name}
    for key, value in vars(network).items():
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            own[key] = dataclasses.asdict(value)
        elif isinstance(value, (str, int, float)) and not key.startswith("_") and key != "training":
            own[key] = value
    return own


def sha256_of_json(value: Any) -> str:
    """Of the JSON text that equal values have equal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class SourceStamp:
    """The bytes that a file had: their number, when they were written (nanoseconds since 1970),
    their digest.

    None where nobody knows, as of a remote file's date.
    """

    source_bytes: int | None
    source_modified_ns: int | None = None
    source_sha256: str | None = None

    @staticmethod
    def of(path: Path, with_digest: bool = True) -> "SourceStamp":
        """Of a file of this machine; of what cannot be read, and of what is no regular file,
        nothing is known.
        """
        try:
            about = path.stat()
            if not stat.S_ISREG(about.st_mode):
                return SourceStamp(None)
            return SourceStamp(
                about.st_size, about.st_mtime_ns, _digest(path) if with_digest else None
            )
        except (OSError, ValueError):
            return SourceStamp(None)

    @staticmethod
    def read(facts: Mapping[str, Any]) -> "SourceStamp":
        """What `asdict` of a stamp was written as."""
        return SourceStamp(*(facts.get(field.name) for field in dataclasses.fields(SourceStamp)))

    def is_still(self, path: Path) -> bool:
        """Whether a file of this machine has the bytes that it had. Only one with another date and
        the same size is read.
        """
        now = SourceStamp.of(path, with_digest=False)
        if now.source_bytes is None or now.source_bytes != self.source_bytes:
            return False
        if now.source_modified_ns == self.source_modified_ns:
            return True
        return (
            self.source_sha256 is not None
            and SourceStamp.of(path).source_sha256 == self.source_sha256
        )


def _digest(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
