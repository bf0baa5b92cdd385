"""Downloads folders from the Hugging Face Hub and uploads them. Needs `looklisten[hub]`.

Knows names and folders. Does not know what a network is.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from looklisten.errors import CheckpointError, ConfigError
from looklisten.model.networks import HUB_NAME
from looklisten.model.published_folder import CONFIG_NAME, NETWORK_FILES
from looklisten.system.cache import is_offline


def download_network(
    name: str,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """The folder of the network `name` on the Hub, downloaded or from the cache.

    `LOOKLISTEN_OFFLINE=1` or the Hub's own `HF_HUB_OFFLINE=1` forbid the network. `HF_ENDPOINT`
    names another server. Raises ConfigError without the extra, CheckpointError when the network
    cannot be downloaded.
    """
    local_files_only = local_files_only or is_offline()
    with _hub_client(
        f"{name} is not a folder here, and the Hugging Face Hub did not give it", local_files_only
    ) as hub:
        folder = hub.snapshot_download(
            name,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            token=token,
            # Nobody needs the rest of a repository to load its network.
            allow_patterns=[CONFIG_NAME, NETWORK_FILES[0]],
        )
    if not (Path(folder) / CONFIG_NAME).is_file():
        raise CheckpointError(
            f"{name} on the Hub has no {CONFIG_NAME}, so it is no network of looklisten"
        )
    return Path(folder)


def download_files(name: str, patterns: Sequence[str]) -> Path:
    """The folder of the model `name` on the Hub with the files of these patterns.

    Downloads and raises as `download_network` does.
    """
    local_files_only = is_offline()
    with _hub_client(
        f"{name} is not a folder here, and the Hugging Face Hub did not give it", local_files_only
    ) as hub:
        folder = hub.snapshot_download(
            name, local_files_only=local_files_only, allow_patterns=list(patterns)
        )
    return Path(folder)


def upload_network(
    folder: Path,
    name: str,
    token: str | bool | None = None,
    private: bool | None = None,
    revision: str | None = None,
    message: str = "",
) -> str:
    """Upload the files of `folder` as the model `name`; return its address.

    The model is created if it does not exist. Raises ConfigError for a name that is not
    `org/name`, CheckpointError when the upload fails.
    """
    if not HUB_NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name on the Hub; give it as org/name")
    with _hub_client(f"{folder} could not be uploaded as {name}") as hub:
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
def _hub_client(problem: str, local_files_only: bool = False) -> Iterator[Any]:
    """The package `huggingface_hub`; its errors become one sentence that begins with `problem`.

    `local_files_only`: no server is asked.
    """
    try:
        import huggingface_hub
    except ImportError:
        raise ConfigError(
            f"{problem}: that needs huggingface_hub: pip install 'looklisten[hub]'"
        ) from None
    try:
        yield huggingface_hub
    # Every exception, because the client also raises those of its HTTP library, and that library
    # differs between versions of the client.
    except Exception as error:
        raise CheckpointError(f"{problem}: {_reason(error, local_files_only)}") from None


def _reason(error: Exception, local_files_only: bool) -> str:
    """Why the Hub did not do what was asked, and what to do next."""
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import LocalEntryNotFoundError

    # The Hub also answers 401 for a name that does not exist.
    if getattr(getattr(error, "response", None), "status_code", None) in (401, 404):
        return "it has no model of this name; check the name, or log in (`hf auth login`)"
    if isinstance(error, LocalEntryNotFoundError):
        if local_files_only or HF_HUB_OFFLINE:
            return (
                "the model is not in the cache, and downloads are off (LOOKLISTEN_OFFLINE, "
                "HF_HUB_OFFLINE or local_files_only); allow them once, or give the folder of a run"
            )
        return "it cannot be reached; connect to the internet, or give the folder of a run"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[0] if lines else type(error).__name__
    return f"{reason}; check the name, your connection and your login (`hf auth whoami`)"
