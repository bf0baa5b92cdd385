"""The verb `models`: what can be named, with size, license and origin."""

from dataclasses import asdict

from looklisten.app.output import Output


def run_models(measure: bool = False) -> Output:
    """List networks, backbones and recipes: size, license, training data, whether it is here.

    Args:
        measure: Time each backbone on one frame or one second of sound, on the CPU.
    """
    from looklisten.interop.catalog import models

    return Output({"models": [asdict(card) for card in models(measure)]})
