"""Publishes a network: as a folder with a model card, and from there to the Hugging Face Hub."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from looklisten.interop.hub import upload_network
from looklisten.interop.pretrained import write_pretrained
from looklisten.model.l3net import L3Net
from looklisten.model.networks import open_network


def save_pretrained(model: L3Net | str | Path, folder: str | Path, name: str = "") -> Path:
    """Write `config.json`, `model.safetensors` and the model card `README.md` into `folder`.

    `model`: a network, or a name as for `looklisten.open`. The card of a run has its figures; the
    card of a network alone says that nothing is recorded. `name`: the title of the card, by default
    the name of the folder. Other files of the folder stay.
    """
    folder = Path(folder)
    title = name or folder.name
    if isinstance(model, L3Net):
        return write_pretrained(folder, model, None, title)
    run = open_network(model)
    return write_pretrained(folder, run.l3net, run.checkpoint, title)


def push_to_hub(
    model: L3Net | str | Path,
    repo: str,
    *,
    token: str | bool | None = None,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "",
) -> str:
    """Upload what `save_pretrained` writes as the model `repo` (`org/name`); return its address.

    Needs `looklisten[hub]`.
    """
    # The Hub gets a folder, and the user asked for none on this machine.
    with TemporaryDirectory(prefix="looklisten-") as scratch:
        folder = save_pretrained(model, Path(scratch) / "model", repo)
        return upload_network(folder, repo, token, private, revision, commit_message)


def publish(
    model: str | Path, out: str | Path, hub: str = "", private: bool = False
) -> dict[str, Any]:
    """Write a network and its model card to the folder `out`.

    `hub`: upload the folder as the model of this name (`org/name`). `private`: nobody else may see
    the uploaded model.
    """
    folder = save_pretrained(model, out, hub)
    address = upload_network(folder, hub, private=private) if hub else None
    return {"folder": str(folder), "hub": address}
