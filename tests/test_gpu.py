"""What only a GPU can show: its arithmetic, NCCL and compiled kernels. Skipped where there is none.

`benchmarks/gpu.py` runs these tests. Under the hook that checks shapes torch.compile fails, so it
runs them without that hook.
"""

import socket

import numpy as np
import pytest
import torch

import looklisten as ll
from conftest import small_config
from looklisten.app.demo_time import noise_batch
from looklisten.inference.encoder import encoder_of
from looklisten.model.l3net import L3Net
from looklisten.training.distributed import process_world
from looklisten.training.learner import Learner

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

BFLOAT16_TOLERANCE = 0.03
"""Of the loss, which is 0.69 by chance; bfloat16 has 8 significant bits."""
FLOAT32_TOLERANCE = 0.01
"""A GPU multiplies float32 with 11 significant bits (TF32) in convolutions."""
LEARNING_RATE = 1e-3


def start_from_cpu(learner: Learner, config) -> None:
    """The initial weights of a CPU: generators of other devices draw other numbers."""
    torch.manual_seed(0)
    learner.network.load_state_dict(L3Net(config.model).state_dict())


def two_losses(learner: Learner, config) -> list[float]:
    batch = noise_batch(config, config.train.batch_size)
    losses = []
    for step in (1, 2):
        result = learner.step([batch], step, LEARNING_RATE, augmented=False)
        losses.append(float(result.loss))
    return losses


def losses_on(device: str, **settings) -> list[float]:
    """The losses of two steps from the same weights."""
    config = small_config(**settings)
    learner = Learner(config, device)
    start_from_cpu(learner, config)
    return two_losses(learner, config)


def test_two_bfloat16_steps_have_the_losses_of_float32_on_a_cpu():
    reference = losses_on("cpu", precision="float32")
    assert losses_on(DEVICE, precision="bfloat16") == pytest.approx(
        reference, abs=BFLOAT16_TOLERANCE
    )
    assert abs(reference[1] - reference[0]) > 1e-4, "the second step sees the weights of the first"


def test_two_float32_steps_have_the_losses_of_a_cpu():
    reference = losses_on("cpu", precision="float32")
    assert losses_on(DEVICE, precision="float32") == pytest.approx(reference, abs=FLOAT32_TOLERANCE)


def test_a_compiled_step_is_the_eager_one():
    eager = losses_on(DEVICE, precision="float32", compile="off")
    assert losses_on(DEVICE, precision="float32", compile="on") == pytest.approx(
        eager, abs=FLOAT32_TOLERANCE
    )


def test_one_process_connected_by_nccl_takes_the_same_steps(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {
        "RANK": 0,
        "LOCAL_RANK": 0,
        "WORLD_SIZE": 1,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }.items():
        monkeypatch.setenv(name, str(value))
    config = small_config(precision="float32")
    alone = losses_on(DEVICE, precision="float32")
    with process_world(DEVICE, connect_alone=True) as world:
        learner = Learner(config, DEVICE, world)
        start_from_cpu(learner, config)
        connected = two_losses(learner, config)
        backend = torch.distributed.get_backend_config()
        learner.release()
    assert connected == pytest.approx(alone, abs=FLOAT32_TOLERANCE)
    assert ("nccl" in str(backend)) == DEVICE.startswith("cuda")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_vectors_are_the_same_from_run_to_run_and_alone_or_in_a_batch(precision):
    torch.manual_seed(0)
    network = L3Net(small_config().model).eval().to(DEVICE)
    rng = np.random.default_rng(0)
    sound = (0.1 * rng.standard_normal(9 * 24_000)).astype(np.float32)
    first, again = (
        ll.embed(sound, network, sample_rate_hz=48_000, precision=precision).vectors
        for _ in range(2)
    )
    assert np.array_equal(first, again), "from run to run"
    assert len(first) == 8
    alone = ll.embed(
        sound, network, sample_rate_hz=48_000, precision=precision, batch_size=1
    ).vectors
    cosine = (first * alone).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(alone, axis=1)
    assert cosine.min() > 0.9999, "alone or in a batch, to rounding"


@torch.inference_mode()
def test_vectors_of_a_gpu_are_those_of_a_cpu():
    torch.manual_seed(0)
    network = L3Net(small_config().model).eval()
    batch = noise_batch(small_config(), small_config().train.batch_size)
    for side, inputs in (("audio", batch.waveforms), ("vision", batch.frames)):
        on_cpu = encoder_of(network.to("cpu")).encode(side, inputs, "pool4")
        on_gpu = encoder_of(network.to(DEVICE)).encode(side, inputs.to(DEVICE), "pool4").cpu()
        assert torch.cosine_similarity(on_cpu, on_gpu).min() > 0.9999, side
