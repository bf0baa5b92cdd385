"""The Hugging Face Hub: folders down and up. Knows names and folders, not what a network is; needs
`looklisten[hub]`.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from looklisten.errors import CheckpointError, ConfigError
from looklisten.model.networks import HUB_NAME

FILES = ("config.json", "model.safetensors")
OFFLINE = "LOOKLISTEN_OFFLINE"
"""Environment variable: 1 forbids the network."""


def download(
    name: str,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """The folder of a network on the Hub, fetched or from the cache.

    `LOOKLISTEN_OFFLINE=1` or the Hub's own `HF_HUB_OFFLINE=1` ask no server, `HF_ENDPOINT` names
    another one.

    Raises ConfigError without the extra, CheckpointError when it cannot be had.
    """
    with _client(f"{name} is no folder here, and the Hub did not give it") as hub:
        folder = hub.snapshot_download(
            name,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only or os.environ.get(OFFLINE, "0") not in ("", "0"),
            token=token,
            allow_patterns=list(FILES),
        )
    if not (Path(folder) / FILES[0]).is_file():
        raise CheckpointError(
            f"{name} on the Hub has no config.json, so it is no network of looklisten"
        )
    return Path(folder)


def upload(
    folder: Path,
    name: str,
    token: str | bool | None = None,
    private: bool | None = None,
    revision: str | None = None,
    message: str = "",
) -> str:
    """Put the files of `folder` on the Hub as the model `name`, made if it is not there; returns
    its address.
    """
    if not HUB_NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name on the Hub; give it as org/name")
    with _client(f"{folder} could not be uploaded as {name}") as hub:
        api = hub.HfApi(token=token)
        address = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=name,
            folder_path=folder,
            revision=revision,
            commit_message=message or f"{name} by looklisten",
        )
    return str(address)


@contextlib.contextmanager
def _client(trouble: str) -> Iterator[Any]:
    """The package `huggingface_hub`; what it raises becomes one sentence that begins with
    `trouble`.
    """
    try:
        import huggingface_hub
    except ImportError:
        raise ConfigError(
            f"{trouble}: that needs huggingface_hub: pip install 'looklisten[hub]'"
        ) from None
    try:
        yield huggingface_hub
    except (
        Exception
    ) as error:  # its HTTP library's errors too, and that library differs between versions
        reason = next(
            (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
        )
        raise CheckpointError(
            f"{trouble}: {reason} (check the name, your connection and `hf auth whoami`)"
        ) from None
