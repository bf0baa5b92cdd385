"""A network leaves the house: as a folder with its card, and from there to the Hugging Face Hub."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from looklisten.interop.hub import upload
from looklisten.interop.pretrained import write_pretrained
from looklisten.model.l3net import L3Net
from looklisten.model.networks import open_network


def save_pretrained(model: L3Net | str | Path, folder: str | Path, name: str = "") -> Path:
    """Write `config.json`, `model.safetensors` and the card `README.md`, beside what the folder
    already holds.

    `model`: a network, or where one is (a run; whatever `load` takes). Of a run the card has the
        numbers; of a bare network it says that nothing is recorded. `name` is what the card calls
        it, by default the folder's.
    """
    folder = Path(folder)
    if isinstance(model, L3Net):
        return write_pretrained(folder, model, None, name or folder.name)
    run = open_network(model)
    return write_pretrained(folder, run.l3net, run.checkpoint, name or folder.name)


def push_to_hub(
    model: L3Net | str | Path,
    repo: str,
    *,
    token: str | bool | None = None,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "",
) -> str:
    """Upload what `save_pretrained` writes as the model `repo` (`org/name`) and return its address.
    Needs `looklisten[hub]`.
    """
    with TemporaryDirectory(prefix="looklisten-") as scratch:
        folder = save_pretrained(model, Path(scratch) / "model", repo)
        return upload(folder, repo, token, private, revision, commit_message)


def publish(
    model: str | Path, out: str | Path, hub: str = "", private: bool = False
) -> dict[str, Any]:
    """Write the network and its card to the folder `out`, and upload them as the model `hub` if one
    is named.
    """
    folder = save_pretrained(model, out, hub)
    address = upload(folder, hub, private=private) if hub else None
    return {"folder": str(folder), "hub": address}
