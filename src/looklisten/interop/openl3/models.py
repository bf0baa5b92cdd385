"""Networks of OpenL3 by name, file or folder; under OpenL3's own names too."""

from pathlib import Path

from looklisten.interop.openl3.errors import OpenL3Error
from looklisten.interop.openl3.networks import OpenL3Net
from looklisten.interop.openl3.published import locate
from looklisten.interop.openl3.variants import (
    WORDS,
    Side,
    Variant,
    variant,
    variant_named,
    variant_of_file,
)
from looklisten.interop.openl3.weights import (
    Weights,
    channels_in,
    read_folder,
    read_keras,
    write_folder,
)
from looklisten.model.networks import OPENL3_FILE, OPENL3_PREFIX
from looklisten.system.devices import choose_device, choose_precision, to_device
from looklisten.system.progress import Progress, no_progress

FRONTENDS = ("kapre", "librosa")


def load(source: str | Path, progress: Progress = no_progress) -> OpenL3Net:
    """A network of OpenL3, an `Encoder`, in evaluation mode, on the CPU.

    `source`: `openl3:audio-mel256-env`, whose published file is fetched on first use; a weight file
        of Keras (`.h5`, `.h5.gz`) that is named as OpenL3 names them; or a folder that `convert`
        wrote. Raises OpenL3Error, one sentence.
    """
    kind, weights, _ = _read(source, progress)
    return _build(OpenL3Net(kind), weights, str(source))


def _read(source: str | Path, progress: Progress) -> tuple[Variant, Weights, str]:
    """(network, weights, where they are from)."""
    if str(source).startswith(OPENL3_PREFIX):
        kind = variant_named(str(source))
        return kind, read_keras(locate(kind, progress=progress)), str(source)
    path = Path(source)
    if (path / OPENL3_FILE).is_file():
        return *read_folder(path), str(path)
    told, weights = variant_of_file(path), read_keras(path)
    side: Side = "audio" if channels_in(weights) == 1 else "vision"
    if told is None and side == "audio":
        raise OpenL3Error(
            f"the name of {path} does not tell which spectrogram its network hears; rename it as OpenL3 names its files, "
            f"such as openl3_audio_mel256_env.h5"
        )
    if told and told.side != side:
        raise OpenL3Error(
            f"{path} is named as a network for {WORDS[told.side]}, and its first layer is one for {WORDS[side]}"
        )
    return told or Variant("vision", "mel256"), weights, path.name


def convert(
    source: str | Path, out: str | Path, progress: Progress = no_progress
) -> dict[str, str]:
    """Turn a weight file of OpenL3 into a folder of safetensors and JSON that `load` reads without
    h5py.

    Returns what was written. Raises OpenL3Error, one sentence.
    """
    kind, weights, origin = _read(source, progress)
    _build(OpenL3Net(kind), weights, str(source))  # so that a folder is written of networks alone
    write_folder(Path(out), weights, kind, origin)
    return {"network": f"{OPENL3_PREFIX}{kind.name}", "folder": str(out)}


def _build(net: OpenL3Net, weights: Weights, source: str) -> OpenL3Net:
    try:
        missing, unexpected = net.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise OpenL3Error(
            f"the weights in {source} do not fit: {str(error).splitlines()[-1].strip()}"
        ) from None
    lacking = [
        name for name in missing if not name.endswith("num_batches_tracked")
    ]  # of training alone, and Keras has none
    if lacking or unexpected:
        raise OpenL3Error(
            f"the weights in {source} are not those of a network of OpenL3: {', '.join((*lacking, *unexpected)[:3])}"
        )
    return net.fused()


def load_audio_embedding_model(
    input_repr: str,
    content_type: str,
    embedding_size: int,
    frontend: str = "kapre",
    *,
    weights: str | Path | None = None,
    device: str = "auto",
    precision: str = "float32",
    progress: Progress = no_progress,
) -> OpenL3Net:
    """OpenL3's network for sound, its published weights fetched on first use.

    Beyond OpenL3: `weights`, a file, folder or address of weights; `device`; `precision`, float32,
    bfloat16, or auto for the faster of the two. Raises OpenL3Error.
    """
    net = _net(variant("audio", input_repr, content_type), embedding_size, frontend)
    return _ready(net, locate(net.variant, weights, progress), device, precision)


def load_audio_embedding_model_from_path(
    model_path: str | Path,
    input_repr: str,
    embedding_size: int,
    frontend: str = "kapre",
    *,
    device: str = "auto",
    precision: str = "float32",
) -> OpenL3Net:
    """OpenL3's network for sound from a weight file, whatever its name. Raises OpenL3Error."""
    return _ready(
        _net(variant("audio", input_repr, None), embedding_size, frontend),
        Path(model_path),
        device,
        precision,
    )


def load_image_embedding_model(
    input_repr: str,
    content_type: str,
    embedding_size: int,
    *,
    weights: str | Path | None = None,
    device: str = "auto",
    precision: str = "float32",
    progress: Progress = no_progress,
) -> OpenL3Net:
    """OpenL3's network for pictures, as `load_audio_embedding_model`; `input_repr` is what its
    partner was trained to hear.
    """
    net = _net(variant("vision", input_repr, content_type), embedding_size)
    return _ready(net, locate(net.variant, weights, progress), device, precision)


def load_image_embedding_model_from_path(
    model_path: str | Path, embedding_size: int, *, device: str = "auto", precision: str = "float32"
) -> OpenL3Net:
    """OpenL3's network for pictures from a weight file, whatever its name. Raises OpenL3Error."""
    return _ready(
        _net(Variant("vision", "mel256"), embedding_size), Path(model_path), device, precision
    )


def _net(kind: Variant, embedding_size: int, frontend: str = "kapre") -> OpenL3Net:
    if frontend not in FRONTENDS:
        raise OpenL3Error(
            f"there is no front end {frontend!r}; there are {' and '.join(FRONTENDS)}"
        )
    net = OpenL3Net(kind, frontend, embedding_size)
    net.layer_for(embedding_size)  # refuses a size that is none
    return net


def _ready(net: OpenL3Net, path: Path, device: str, precision: str) -> OpenL3Net:
    """The network with its weights, on the device."""
    weights = read_folder(path)[1] if (path / OPENL3_FILE).is_file() else read_keras(path)
    chosen = choose_device(device).value
    net.precision = choose_precision(chosen, precision).value
    return to_device(_build(net, weights, str(path)), chosen)
