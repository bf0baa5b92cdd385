"""The model card of a network: what it is, how to load it, and what was measured of it.

Knows the content of `config.json`. Does not measure; an unknown figure is "not measured".
"""

from typing import Any

import tomlkit

from looklisten.config import SIDES
from looklisten.media.spectrogram import WINDOW_SAMPLES
from looklisten.model.backbones import find_backbone
from looklisten.model.initial_towers import SCRATCH

UNKNOWN = "not recorded"
NOT_MEASURED = "not measured"

# The Hub reads this header. Its keys are the Hub's.
HEADER = """\
---
library_name: looklisten
license: unknown  # to be chosen by whoever publishes these weights
pipeline_tag: feature-extraction
tags: [audio-visual, self-supervised, l3-net, audio, video, image]
---
"""

TEXT = """\
# {name}

Two networks, one for images and one for sound. They learned from unlabeled video which sound
belongs to which image: L3-Net of "Look, Listen and Learn" (Arandjelović & Zisserman, ICCV 2017),
made with looklisten {looklisten_version}.

```python
import torch
import looklisten as ll

model = ll.load("{name}")  # this folder, or its name on the Hugging Face Hub
sound = torch.zeros(1, {window_samples:_})  # one second at 48 kHz, floats in -1..1
print(model.listen(sound).vector.shape)
image = torch.zeros(1, {channels}, {crop_pixels}, {crop_pixels})  # uint8, or floats in 0..1
print(model.look(image).vector.shape)
```

{rows}

What the videos show, where they come from and under which terms: {unknown}; to be written by
whoever publishes this. License: not chosen yet.

## Settings

```toml
{settings}```
"""


def model_card(name: str, description: dict[str, Any]) -> str:
    """The `README.md` of a network.

    `description`: what its `config.json` says. `name`: what it is loaded by.
    """
    model = description["config"]["model"]
    rows = [("", ""), ("---", "---"), *_rows(description)]
    return HEADER + TEXT.format(
        name=name,
        looklisten_version=description["looklisten_version"],
        window_samples=WINDOW_SAMPLES,
        channels=3 * model["frames_per_pair"],
        crop_pixels=model["crop_pixels"],
        rows="\n".join(f"| {title} | {value} |" for title, value in rows),
        unknown=UNKNOWN,
        settings=tomlkit.dumps(description["config"]),
    )


def _rows(description: dict[str, Any]) -> list[tuple[str, str]]:
    facts = description["made"]
    train = description["config"].get("train", {})
    environment = facts.get("environment", {})
    steps = objective = started = UNKNOWN
    if description["step"]:
        steps = f"{description['step']:,}, each of {train['batch_size']} videos"
    if train:
        objective = f"{train['objective']}, negatives: {train['negatives']}"
    if environment:
        started = f"{facts['began']}, {_machine(environment)}"
    accuracy_note = "at least {pairs:,} pairs, chance 0.5"
    probe_note = "a quick one while training"
    return [
        ("trained on", _amount(facts.get("trained_on"))),
        ("held out", _amount(facts.get("held_out"))),
        ("steps", steps),
        ("objective", objective),
        *_published_towers(description),
        ("seed", str(train.get("seed", UNKNOWN))),
        (
            "AVC accuracy on held-out videos",
            _measured(description, "held_out_accuracy", accuracy_note),
        ),
        ("linear probe of sounds", _measured(description, "probe_audio", probe_note)),
        ("linear probe of frames", _measured(description, "probe_vision", probe_note)),
        ("begun on", started),
        ("other benchmarks", NOT_MEASURED),
    ]


def _published_towers(description: dict[str, Any]) -> list[tuple[str, str]]:
    """A row for each tower that began with weights of others: whose, from what, which license."""
    train = description["config"].get("train")
    rows = []
    # Of a network that was saved without its training nobody knows it.
    for side in SIDES if train else ():
        name = description["backbones"][side]
        published = find_backbone(name).published
        if published is not None and train.get(f"{side}_from") != SCRATCH:
            origin = f"trained by {published.trained_by} on {published.trained_on}"
            rows.append((f"{side} tower", f"{name}, {origin}; {published.file.license}"))
    return rows


def _amount(videos: dict[str, Any] | None) -> str:
    if not videos:
        return UNKNOWN
    return f"{videos['videos']:,} videos, {videos['hours']:.4g} hours"


def _measured(description: dict[str, Any], name: str, note: str) -> str:
    figure = description["measured"].get(name)
    if not figure:
        return NOT_MEASURED
    note = note.format(**figure)
    return f"{figure['value']:.4g} at step {figure['step']:,} ({note}; interval not measured)"


def _machine(environment: dict[str, Any]) -> str:
    cores = f"{environment['cores']} cores of {environment['machine']}"
    return f"{environment['device']}, {cores}, PyTorch {environment['torch']}"
