"""One door for every network: a run, a checkpoint, a saved or exported folder, a name on the Hub,
another house's weights.
"""

import importlib
from pathlib import Path
from typing import Any

from looklisten.errors import CheckpointError
from looklisten.interop.hub import download, hub_name
from looklisten.interop.pretrained import CONFIG, read_pretrained
from looklisten.model.checkpoint import Checkpoint, open_checkpoint
from looklisten.model.l3net import L3Net


def load(where: str | Path) -> L3Net | Any:
    """A network, in evaluation mode, on the CPU.

    `where`: the folder of a run or of a checkpoint; a folder of `save_pretrained` or `export`; a
        name on the Hugging Face Hub (`org/name`, when there is no such path here; `hf-hub:org/name`
        in any case). These give an `L3Net`. OpenL3's networks (`openl3:audio-mel256-env`, a
        converted folder, an .h5 file) come as another `Encoder`. Raises CheckpointError, one
        sentence.
    """
    return load_with_step(where)[0]


def load_with_step(where: str | Path) -> tuple[L3Net | Any, int | None]:
    """What `load` gives, and the training step of a network of looklisten (0: it comes from no
    run).
    """
    if of_another_house(where):
        return importlib.import_module("looklisten.interop.openl3").load(where), None
    saved = open_network(where)
    return saved.model(), saved.step


def of_another_house(where: str | Path) -> bool:
    """Whether `where` means a network of OpenL3: its name, a weight file of Keras, or a folder that
    `convert` wrote.
    """
    text = str(where)
    return (
        text.startswith("openl3:")
        or text.endswith((".h5", ".h5.gz", ".hdf5"))
        or (Path(where) / "openl3.json").is_file()
    )


def load_network(where: str | Path) -> L3Net:
    """Like `load`, for what only a network of looklisten can do."""
    return open_network(where).model()


def open_network(where: str | Path, **download_options: Any) -> Checkpoint:
    """A network of looklisten with what is known of its training."""
    if of_another_house(where):
        raise CheckpointError(
            f"{where} is a network of OpenL3, which gives vectors alone; this needs one that `looklisten train` made"
        )
    name = hub_name(where)
    path = download(name, **download_options) if name else Path(where)
    return read_pretrained(path) if (path / CONFIG).is_file() else open_checkpoint(path)


def open_trained(where: str | Path) -> Checkpoint:
    """Like `open_network`, for what must know the videos that training did not see."""
    saved = open_network(where)
    if not saved.step:
        raise CheckpointError(
            f"{where} is a network without its training, so nobody knows which videos were held out from it; "
            f"give the folder of a run, or one that was saved from a run"
        )
    return saved


def from_pretrained(
    where: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    map_location: str = "cpu",
    strict: bool = True,
) -> L3Net:
    """A network of looklisten from a folder or the Hugging Face Hub, in evaluation mode, on the
    device `map_location`.

    `revision`, `cache_dir`, `local_files_only` and `token` are the Hub's. Not `strict`: weights
    that are not there begin at random.
    """
    saved = open_network(
        where,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        token=token,
    )
    return saved.model(strict).to(map_location)
