"""What all routes share: the network, the batches, the decoders, the index and the jobs."""

import tempfile
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
from jaxtyping import Num, UInt8
from torch import Tensor

from looklisten.config import SIDES
from looklisten.errors import ConfigError
from looklisten.inference.encoder import NetworkEncoder, choose_layer, encoder_of
from looklisten.inference.localization.methods import default_method
from looklisten.model.l3net import L3Net
from looklisten.model.networks import Run, open_network
from looklisten.model.shipped import START
from looklisten.names import printable
from looklisten.search.indexing.index_folder import IndexFolder
from looklisten.search.indexing.moment_encoder import EncodedInput, MomentEncoder
from looklisten.serving.batching import Batcher
from looklisten.serving.catalog import Catalog
from looklisten.serving.decoding import Decoders
from looklisten.serving.jobs import Jobs
from looklisten.serving.metrics import Metrics
from looklisten.serving.options import ServeOptions
from looklisten.serving.records import LimitsReply, ModelReply
from looklisten.serving.refusals import RefusedError
from looklisten.serving.requested_files import RequestedFiles

ALL_METHODS = ("similarity", "correspondence", "unit")


class Service:
    """One network behind a server; `start` and `close` belong to the server's event loop."""

    def __init__(self, run: Run, db: Path | None, options: ServeOptions) -> None:
        self.run = run
        self.network = run.l3net
        self.options = options
        encoder = encoder_of(self.network)
        assert isinstance(encoder, NetworkEncoder)
        self.encoder = encoder
        self.catalog = None if db is None else Catalog(db, run)
        self.metrics = Metrics()
        self.requests_in_flight = 0
        self.is_stopping = False
        self._folder = tempfile.TemporaryDirectory(prefix="looklisten-serve-")
        folder = Path(self._folder.name)
        self.files = RequestedFiles(folder, options.allow_root, self.media_path)
        self.jobs = Jobs(
            folder,
            options.max_jobs,
            options.keep_jobs_seconds,
            lambda error: self.without_paths(str(error)),
        )
        self.decoders = Decoders(options)
        self.batcher = Batcher(
            encoder,
            options.max_batch,
            options.max_wait_ms / 1000,
            options.queue_size,
            lambda waiting: self.requests_in_flight > waiting,
            self.metrics.batch_rows.observe,
        )

    def start(self) -> None:
        """Begin to answer."""
        self.batcher.start()
        self.decoders.warm_up()

    async def close(self) -> None:
        """End the jobs, the threads and the processes, and remove all temporary files."""
        self.jobs.close()
        # Decoders before the batcher, because their threads may still wait for the network.
        self.decoders.close()
        await self.batcher.close()
        self._folder.cleanup()

    @property
    def uploads(self) -> Path:
        """The folder for files that are uploaded into the index."""
        if self.options.uploads is not None:
            return self.options.uploads
        db = self.index_catalog().db
        # Not inside of the index, whose own files are no sources.
        return db.parent / f"{db.name}-uploads"

    def index_catalog(self) -> Catalog:
        """The index. Raises RefusedError for a server without one."""
        if self.catalog is None:
            raise RefusedError(404, "this server has no index; start it with --db DB")
        return self.catalog

    def without_paths(self, sentence: str) -> str:
        """A sentence of the library for clients, who must not learn the folders of this machine."""
        folders = [Path(self._folder.name), self.options.allow_root, self.options.uploads]
        if self.catalog is not None:
            folders += [self.catalog.db.resolve(), self.catalog.db]
        for folder in filter(None, folders):
            # The name of the folder stays, because it says what the sentence is about.
            sentence = sentence.replace(str(folder), folder.name)
        return sentence

    def media_path(self, media: str) -> Path:
        """The file of an id. Raises RefusedError."""
        return self.index_catalog().path(media)

    @cached_property
    def query_encoder(self) -> "ServedMomentEncoder":
        """The encoder of searches, which need no tags."""
        return self.moment_encoder(self.network, False)

    def moment_encoder(self, network: L3Net, with_tags: bool) -> "ServedMomentEncoder":
        """An encoder for indexing and searching that computes on the inference thread."""
        return ServedMomentEncoder(network, with_tags, self.batcher)

    def facts(self) -> ModelReply:
        """What `/v1/model` answers."""
        # The usual method first: the order tells clients which one is the default.
        first = default_method(self.network)
        methods: list[str] = [first]
        for method in ALL_METHODS:
            is_known = method != "similarity" or self.network.fusion.shares_space
            if method != first and is_known:
                methods.append(method)
        options = self.options
        # Of a folder its last part, so that nobody learns a path of the server.
        is_path = Path(self.run.name).exists()
        return ModelReply(
            name=Path(self.run.name).name if is_path else self.run.name,
            step=self.run.step,
            device=str(self.encoder.device),
            version=version("looklisten"),
            layers={side: list(self.encoder.layers[side]) for side in SIDES},
            methods=methods,
            is_calibrated=self.network.calibration is not None,
            can_search=self.catalog is not None,
            can_index=self.catalog is not None,
            limits=LimitsReply(
                max_megabytes=options.max_megabytes,
                max_seconds=options.max_seconds,
                max_megapixels=options.max_megapixels,
                max_streams=options.max_streams,
                requests_per_minute=options.requests_per_minute,
            ),
        )

    def layer(self, side: str, layer: str | None) -> str:
        """The layer of a request. Raises RefusedError for one that the network lacks."""
        try:
            return choose_layer(self.encoder, side, layer)  # type: ignore[arg-type]
        except ConfigError as error:
            raise RefusedError(422, str(error)) from None


class ServedMomentEncoder(MomentEncoder):
    """A `MomentEncoder` for other threads: the network computes on the inference thread alone."""

    def __init__(self, network: L3Net, with_tags: bool, batcher: Batcher) -> None:
        super().__init__(network, with_tags)
        self._batcher = batcher

    def encode_frames(
        self, frames: Sequence[UInt8[Tensor, "height width 3"]]
    ) -> list[EncodedInput]:
        return self._batcher.call_from_thread(super().encode_frames, frames)

    def encode_sounds(self, waveforms: Num[np.ndarray, "sounds samples"]) -> list[EncodedInput]:
        return self._batcher.call_from_thread(super().encode_sounds, waveforms)


def open_service(
    checkpoint: str | Path | None,
    db: Path | None,
    options: ServeOptions,
    device: str = "auto",
) -> Service:
    """The network and the index behind a server. Raises LookListenError where one is missing.

    Without `checkpoint` the network is the one that made the index, or `start` without an index.
    """
    if options.allow_root is not None and not options.allow_root.is_dir():
        raise ConfigError(f"--allow-root {printable(options.allow_root)} is no folder")
    if checkpoint is None:
        facts = {} if db is None else IndexFolder(db).facts()
        checkpoint = facts.get("network", START)
    return Service(open_network(checkpoint, device), db, options)
