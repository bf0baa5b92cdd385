"""L3-Net: two towers, the front end and the fusion."""

from jaxtyping import Float, Num
from torch import Tensor, nn

from looklisten.config import ModelConfig
from looklisten.media.frames import frames_to_unit
from looklisten.media.spectrogram import LogSpectrogram, round_to_int16
from looklisten.model.backbones.backbone import TowerOutput
from looklisten.model.backbones.vgg import Vgg
from looklisten.model.fusions import AlignedFusion, build_fusion
from looklisten.model.initialization import initialize_weights
from looklisten.system.processes import single_thread_after_fork


class L3Net(nn.Module):
    """The network of "Look, Listen and Learn" (ICCV 2017), section 2, at the sizes that `config`
    says.

    Each tower runs once for each frame and each sound; pairs are formed on the vectors.
    """

    def __init__(self, config: ModelConfig | None = None) -> None:
        super().__init__()
        single_thread_after_fork()
        self.config = config = config or ModelConfig()
        self.initial_seed: int | None = None
        """The seed that the weights began with, where a checkpoint knows it."""
        self.front_end = LogSpectrogram(config.front_end, config.window)
        self.vision = Vgg(3 * config.frames_per_pair, config.widths, config.first_stride)
        normalized = bool(self.front_end.spec.range_decibels)
        self.audio = Vgg(
            1, config.widths, config.first_stride, normalized, config.pools_keeping_time
        )
        self.fusion = build_fusion(config, self.vision)
        initialize_weights(self, config)
        self.vision.inflate(config.frames_per_pair)
        if isinstance(self.fusion, AlignedFusion):
            self.fusion.start_right()

    def look(self, frames: Num[Tensor, "batch channels height width"]) -> TowerOutput:
        """Frames as uint8 or as floats in 0..1, of any size that survives the pooling.

        Three channels, or as many times three as `frames_per_pair` says, in the order of time.
        """
        return self.vision(self.normalized(frames))  # type: ignore[no-any-return]

    def normalized(
        self, frames: Num[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """What the vision tower is given: -1..1."""
        return frames_to_unit(frames) * 2 - 1

    def listen(self, waveforms: Num[Tensor, "batch samples"]) -> TowerOutput:
        """Sound at 48 kHz, int16 or floats in -1..1; one second in training."""
        return self.audio(self.spectrogram(waveforms))  # type: ignore[no-any-return]

    def spectrogram(
        self, waveforms: Num[Tensor, "batch samples"]
    ) -> Float[Tensor, "batch 1 bands columns"]:
        """What the audio tower is given. Floats are rounded to 16 bits first, since training reads
        16-bit sound.

        This is the one place where sound of a user becomes the network's input. Training calls
        `front_end` itself: its sound is 16-bit already, and a random gain comes after the rounding.
        """
        return self.front_end(round_to_int16(waveforms))  # type: ignore[no-any-return]

    def forward(
        self,
        frames: Num[Tensor, "batch channels height width"],
        waveforms: Num[Tensor, "batch samples"],
    ) -> Float[Tensor, "batch 2"]:
        """Logits (does not, does correspond) of row i of `frames` with row i of `waveforms`."""
        return self.fusion(*self.fusion.read(self.look(frames), self.listen(waveforms)))  # type: ignore[no-any-return]
