"""The card of a network: what it is, how to load it, and its own numbers. What nobody measured is
"not measured".
"""

from typing import Any

import tomlkit

UNKNOWN = "not recorded"

HEADER = """\
---
library_name: looklisten
license: unknown  # nobody has chosen one yet; whoever publishes these weights must
pipeline_tag: feature-extraction
tags: [audio-visual, self-supervised, l3-net, audio, video, image]
---
"""

TEXT = """\
# {name}

Two networks, one for pictures and one for sounds, that learnt from unlabelled video which sound belongs to which picture: L3-Net of
"Look, Listen and Learn" (Arandjelović & Zisserman, ICCV 2017), made with looklisten {looklisten_version}.

```python
import torch
import looklisten as ll

model = ll.load("{name}")  # this folder, or its name on the Hugging Face Hub
print(model.listen(torch.zeros(1, 48_000)).vector.shape)  # a second of sound at 48 kHz, floats in -1..1
print(model.look(torch.zeros(1, {channels}, {side}, {side})).vector.shape)  # a picture, uint8 or floats in 0..1
```

{rows}

What the videos show, where they come from and under which terms: {unknown}; to be written by whoever publishes this.
License: not chosen yet.

## Settings

```toml
{settings}```
"""


def model_card(name: str, about: dict[str, Any]) -> str:
    """README.md of a network that `about`, its config.json, describes; `name` is what it is loaded
    by.
    """
    model = about["config"]["model"]
    rows = [("", ""), ("---", "---"), *_rows(about)]
    return HEADER + TEXT.format(
        name=name,
        looklisten_version=about["looklisten_version"],
        channels=3 * model["frames_per_pair"],
        side=model["crop_pixels"],
        rows="\n".join(f"| {what} | {value} |" for what, value in rows),
        unknown=UNKNOWN,
        settings=tomlkit.dumps(about["config"]),
    )


def _rows(about: dict[str, Any]) -> list[tuple[str, str]]:
    made, train = about["made"], about["config"].get("train", {})
    machine = made.get("environment", {})
    steps = f"{about['step']:,}, each of {train['batch_size']} videos" if about["step"] else UNKNOWN
    return [
        ("trained on", _amount(made.get("trained_on"))),
        ("held out", _amount(made.get("held_out"))),
        ("steps", steps),
        (
            "objective",
            f"{train['objective']}, negatives: {train['negatives']}" if train else UNKNOWN,
        ),
        ("seed", str(train.get("seed", UNKNOWN))),
        (
            "AVC accuracy on held-out videos",
            _measured(about, "held_out_accuracy", "at least {pairs:,} pairs, chance 0.5"),
        ),
        ("linear probe of sounds", _measured(about, "probe_audio", "a quick one while training")),
        ("linear probe of frames", _measured(about, "probe_vision", "a quick one while training")),
        ("begun on", f"{made['began']}, {_machine(machine)}" if machine else UNKNOWN),
        ("other benchmarks", "not measured"),
    ]


def _amount(part: dict[str, Any] | None) -> str:
    return f"{part['videos']:,} videos, {part['hours']:.4g} hours" if part else UNKNOWN


def _measured(about: dict[str, Any], name: str, how: str) -> str:
    found = about["measured"].get(name)
    return (
        f"{found['value']:.4g} at step {found['step']:,} ({how.format(**found)}; interval not measured)"
        if found
        else "not measured"
    )


def _machine(machine: dict[str, Any]) -> str:
    return f"{machine['device']}, {machine['cores']} cores of {machine['machine']}, PyTorch {machine['torch']}"
