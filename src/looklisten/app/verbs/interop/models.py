"""The verb `models`: what can be named, with size, license and origin."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from looklisten.app.output import Output

if TYPE_CHECKING:
    from looklisten.interop.catalog import ModelCard

SECTIONS = {
    "networks, for --checkpoint": ("network", "network, backbone"),
    "backbones, for --model.backbone and its like of train": ("backbone",),
    "recipes, for train --config": ("recipe",),
}
"""The tables of a terminal, with the uses of their cards."""


def run_models(measure: bool = False) -> Output:
    """List networks, backbones and recipes: size, license, training data, whether it is here.

    Args:
        measure: Time each backbone on one frame or one second of sound, on the CPU.
    """
    from looklisten.interop.catalog import models

    cards = models(measure)
    # A name can be a network and a recipe, so a terminal shows each use apart.
    terminal_values = {
        title: [_shown_row(card, measure) for card in cards if card.use in uses]
        for title, uses in SECTIONS.items()
    }
    return Output({"models": [asdict(card) for card in cards]}, terminal_values=terminal_values)


def _shown_row(card: "ModelCard", measured: bool) -> dict[str, Any]:
    """A card as one line of a terminal, in columns that leave room for the name."""
    row: dict[str, Any] = {"name": card.name, "million": card.million_parameters or None}
    if card.use == "recipe":
        return row
    sides = "both" if " and " in card.sides else card.sides
    origin = "begins with random weights"
    if card.trained_by:
        origin = f"{card.trained_by}: {card.trained_on} ({card.license})"
    row |= {"sides": sides, "MB": card.download_mb or None, "here": card.is_local}
    if measured:
        row["ms"] = card.milliseconds
    return row | {"trained by whom, on what (license)": origin}
