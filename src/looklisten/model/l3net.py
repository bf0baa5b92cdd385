"""L3-Net: the two towers, the front end before the audio tower, and the fusion of both."""

from collections.abc import Mapping

from jaxtyping import Float, Num
from torch import Tensor, nn

from looklisten.config import ModelConfig, Side
from looklisten.media.frames import frames_to_input
from looklisten.media.spectrogram import LogSpectrogram, round_to_int16
from looklisten.model.backbones import Backbone, TowerOutput, build_tower
from looklisten.model.calibration import Calibration
from looklisten.model.fusions import build_fusion, correspondence_logit
from looklisten.model.initialization import initialize_weights
from looklisten.system.devices import float32_by_default
from looklisten.system.processes import single_thread_after_fork


class L3Net(nn.Module):
    """The network of "Look, Listen and Learn" (ICCV 2017), section 2, as `config` describes it.

    Each tower runs once for each frame and each sound; pairs are formed on the features. Raises
    ConfigError when there is no such backbone, or when the settings do not fit it.
    """

    @float32_by_default()
    def __init__(self, config: ModelConfig | None = None) -> None:
        super().__init__()
        # Without it a process that is forked later would hang at its first parallel step.
        single_thread_after_fork()
        self.config = config = config or ModelConfig()
        self.initial_seed: int | None = None
        """The seed of the initial weights, where a checkpoint knows it."""
        self.calibration: Calibration | None = None
        """How log-odds become a probability, where it was fitted; else they are taken as they are.
        """
        self.front_end = LogSpectrogram(config.front_end, config.window)
        normalized = self.front_end.spec.needs_normalization
        # The names of these modules are the names of the weights in every checkpoint. Their order
        # is the order in which initial weights are drawn: another order gives other numbers.
        self.vision = build_tower(config, "vision")
        self.audio = build_tower(config, "audio", normalized)
        self.fusion = build_fusion(config, self.vision, self.audio)
        initialize_weights(self, config)
        # After the drawing: the first changes weights that were drawn, the second replaces some.
        self.vision.inflate_input(config.frames_per_pair)
        self.fusion.initialize_answer()

    def tower(self, side: Side) -> Backbone:
        """The tower of one side."""
        return self.vision if side == "vision" else self.audio

    @property
    def features(self) -> Mapping[Side, int]:
        """The number of features of each tower."""
        return {"vision": self.vision.features, "audio": self.audio.features}

    def look(self, frames: Num[Tensor, "batch channels height width"]) -> TowerOutput:
        """The vision tower's output for frames, uint8 or floats in 0..1.

        Frames have any size that survives the pooling. They have three channels, or as many times
        three as `frames_per_pair` says, in the order of time.
        """
        return self.vision(self.normalize_frames(frames))  # type: ignore[no-any-return]

    def normalize_frames(
        self, frames: Num[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The input of the vision tower: -1..1."""
        return frames_to_input(frames)

    def listen(self, waveforms: Num[Tensor, "batch samples"]) -> TowerOutput:
        """The audio tower's output for sound at 48 kHz, int16 or floats in -1..1.

        In training a waveform has one second.
        """
        return self.audio(self.spectrogram(waveforms))  # type: ignore[no-any-return]

    def spectrogram(
        self, waveforms: Num[Tensor, "batch samples"]
    ) -> Float[Tensor, "batch 1 bands columns"]:
        """The input of the audio tower. Floats are rounded to 16 bits, which training reads."""
        # All sound of a user enters the network here. Training calls `front_end` itself: its sound
        # has 16 bits already, and its random gain comes after the rounding.
        return self.front_end(round_to_int16(waveforms))  # type: ignore[no-any-return]

    def log_odds(self, logits: Float[Tensor, "*pairs 2"]) -> Float[Tensor, "*pairs"]:
        """The log-odds that frames and sounds correspond, calibrated where the network is.

        Above 0 the answer is yes. `logits` are those of the fusion.
        """
        log_odds = correspondence_logit(logits)
        return self.calibration.log_odds(log_odds) if self.calibration else log_odds

    def forward(
        self,
        frames: Num[Tensor, "batch channels height width"],
        waveforms: Num[Tensor, "batch samples"],
    ) -> Float[Tensor, "batch 2"]:
        """Logits (does not, does correspond) of row i of `frames` with row i of `waveforms`."""
        features = self.fusion.features(self.look(frames), self.listen(waveforms))
        return self.fusion(*features)  # type: ignore[no-any-return]
