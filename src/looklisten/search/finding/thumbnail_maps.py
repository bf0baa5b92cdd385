"""Heat maps over thumbnails: where in a moment's frame its own sound comes from.

The index holds the vector of the sound, so no media file is opened. Knows tensors and JPEG files.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32

from looklisten.inference.towers import look
from looklisten.media.frames import decode_jpeg, stack
from looklisten.search.indexing.moment_encoder import MomentEncoder


@torch.inference_mode()
def thumbnail_map(
    encoder: MomentEncoder, jpeg: bytes, sound: Float32[np.ndarray, " width"]
) -> Float[np.ndarray, "rows columns"] | None:
    """For each position the probability that it belongs to the sound, 0..1.

    None for a network that does not compare positions.
    """
    network = encoder.network
    if network is None:
        return None
    fusion = network.fusion
    if not fusion.compares_positions:
        return None
    device = next(network.parameters()).device
    frame = stack([decode_jpeg(jpeg, encoder.resize_pixels)]).to(device)
    channels: Sequence[int] = (1, network.config.frames_per_pair, 1, 1)
    vision = look(network, frame.repeat(*channels))
    positions = fusion.aligned(fusion.map_positions(vision), "vision")
    frame_vectors = fusion.aligned(fusion.vision_features(vision), "vision")
    sound_vector = torch.from_numpy(sound).to(positions)
    answers = fusion.whole_frame_similarity(frame_vectors @ sound_vector)
    similarities = fusion.shown_similarities(positions @ sound_vector, answers, vision)
    log_odds = network.log_odds(fusion.similarity_logits(similarities))
    values: Float[np.ndarray, "1 positions"] = torch.sigmoid(log_odds).float().cpu().numpy()
    return values.reshape(vision.map.shape[2:])
