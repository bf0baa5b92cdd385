"""Opens networks of OpenL3 by name, file or folder; also under the names that OpenL3 has."""

from pathlib import Path

from looklisten.config import Side
from looklisten.interop.openl3.errors import OpenL3Error
from looklisten.interop.openl3.networks import OpenL3Net
from looklisten.interop.openl3.published import locate
from looklisten.interop.openl3.variants import (
    OPENL3_SIDES,
    Variant,
    variant,
    variant_named,
    variant_of_file,
)
from looklisten.interop.openl3.weights import (
    TensorsByName,
    input_channels,
    read_folder,
    read_keras,
    write_folder,
)
from looklisten.model.networks import OPENL3_FILE, OPENL3_PREFIX
from looklisten.system.devices import choose_device, choose_precision, to_device

FRONTENDS = ("kapre", "librosa")


def load(source: str | Path) -> OpenL3Net:
    """A network of OpenL3, an `Encoder`, in evaluation mode, on the CPU.

    `source`: `openl3:audio-mel256-env`, whose published file is downloaded on first use; a Keras
    file (`.h5`, `.h5.gz`) that is named as by OpenL3; or a folder that `convert` wrote. Raises
    OpenL3Error.
    """
    network, weights, _ = _read(source)
    return _with_weights(OpenL3Net(network), weights, str(source))


def _read(source: str | Path) -> tuple[Variant, TensorsByName, str]:
    """(network, weights, where the weights are from)."""
    if str(source).startswith(OPENL3_PREFIX):
        network = variant_named(str(source))
        return network, read_keras(locate(network)), str(source)
    path = Path(source)
    if (path / OPENL3_FILE).is_file():
        network, weights = read_folder(path)
        return network, weights, str(path)
    named_variant = variant_of_file(path)
    weights = read_keras(path)
    side: Side = "audio" if input_channels(weights) == 1 else "vision"
    # The weights of all audio networks have the same shapes; only the name tells the spectrogram.
    if named_variant is None and side == "audio":
        raise OpenL3Error(
            f"the name of {path} does not tell the spectrogram of its network; "
            "rename it as OpenL3 names its files, such as openl3_audio_mel256_env.h5"
        )
    if named_variant and named_variant.side != side:
        raise OpenL3Error(
            f"{path} is named as a network for {OPENL3_SIDES[named_variant.side]}, "
            f"and its first layer is one for {OPENL3_SIDES[side]}"
        )
    # The vision tower is the same whatever spectrogram its partner was trained with.
    return named_variant or Variant("vision", "mel256"), weights, path.name


def convert(source: str | Path, out: str | Path) -> dict[str, str]:
    """Convert a weight file of OpenL3 to a folder of safetensors and JSON; return what was written.

    `load` reads such a folder without h5py. `source` is as for `load`. Raises OpenL3Error.
    """
    network, weights, origin = _read(source)
    _with_weights(OpenL3Net(network), weights, str(source))  # raises if the weights do not fit
    write_folder(Path(out), weights, network, origin)
    return {"network": f"{OPENL3_PREFIX}{network.name}", "folder": str(out)}


def _with_weights(net: OpenL3Net, weights: TensorsByName, source: str) -> OpenL3Net:
    try:
        missing, unexpected = net.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise OpenL3Error(f"the weights in {source} do not fit: {reason}") from None
    # Keras has no count of batches, which only training needs.
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        names = ", ".join((*missing, *unexpected)[:3])
        raise OpenL3Error(f"the weights in {source} are not those of a network of OpenL3: {names}")
    return net.eval()


def load_audio_embedding_model(
    input_repr: str,
    content_type: str,
    embedding_size: int,
    frontend: str = "kapre",
    *,
    weights: str | Path | None = None,
    device: str = "auto",
    precision: str = "float32",
) -> OpenL3Net:
    """OpenL3's audio network; its published weights are downloaded on first use.

    Beyond OpenL3: `weights`, a file, folder or address of weights; `device`; `precision`, float32,
    bfloat16, or auto for the faster one. Raises OpenL3Error.
    """
    net = _build(variant("audio", input_repr, content_type), embedding_size, frontend)
    return _load_weights(net, locate(net.variant, weights), device, precision)


def load_audio_embedding_model_from_path(
    model_path: str | Path,
    input_repr: str,
    embedding_size: int,
    frontend: str = "kapre",
    *,
    device: str = "auto",
    precision: str = "float32",
) -> OpenL3Net:
    """OpenL3's audio network from a weight file of any name. Raises OpenL3Error."""
    net = _build(variant("audio", input_repr, None), embedding_size, frontend)
    return _load_weights(net, Path(model_path), device, precision)


def load_image_embedding_model(
    input_repr: str,
    content_type: str,
    embedding_size: int,
    *,
    weights: str | Path | None = None,
    device: str = "auto",
    precision: str = "float32",
) -> OpenL3Net:
    """OpenL3's image network; its published weights are downloaded on first use.

    `input_repr` is the spectrogram of the audio network that it was trained with. The other
    parameters are those of `load_audio_embedding_model`. Raises OpenL3Error.
    """
    net = _build(variant("vision", input_repr, content_type), embedding_size)
    return _load_weights(net, locate(net.variant, weights), device, precision)


def load_image_embedding_model_from_path(
    model_path: str | Path, embedding_size: int, *, device: str = "auto", precision: str = "float32"
) -> OpenL3Net:
    """OpenL3's image network from a weight file of any name. Raises OpenL3Error."""
    # The spectrogram of the partner network makes no difference for images.
    net = _build(Variant("vision", "mel256"), embedding_size)
    return _load_weights(net, Path(model_path), device, precision)


def _build(network: Variant, embedding_size: int, frontend: str = "kapre") -> OpenL3Net:
    if frontend not in FRONTENDS:
        raise OpenL3Error(
            f"there is no front end {frontend!r}; there are {' and '.join(FRONTENDS)}"
        )
    net = OpenL3Net(network, frontend, embedding_size)
    net.layer_for(embedding_size)  # raises for an unknown size
    return net


def _load_weights(net: OpenL3Net, path: Path, device: str, precision: str) -> OpenL3Net:
    """The network with its weights, on the device."""
    weights = read_folder(path)[1] if (path / OPENL3_FILE).is_file() else read_keras(path)
    chosen_device = choose_device(device).value
    net.precision = choose_precision(chosen_device, precision).value
    return to_device(_with_weights(net, weights, str(path)), chosen_device)
