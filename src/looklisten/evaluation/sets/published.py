"""What others reported on the public sets, to stand beside what is measured here. Figures only;
knows no data.
"""

from typing import NamedTuple


class Published(NamedTuple):
    """One row of somebody's table; `source` says how sure we are of it."""

    method: str
    accuracy: float
    source: str


_PAPER = "the paper, by way of a review"
_OLDER = "reprinted in the paper; SoundNet's table and the ESC-50 page"
_RECALLED = "recalled, not checked against the paper"
_ESC10 = "the ESC-50 page"

PUBLISHED: dict[str, tuple[Published, ...]] = {
    # Section 4.1, table 2 of the paper.
    "esc50": (
        Published("SVM on MFCC (Piczak 2015)", 0.396, _OLDER),
        Published("convolutional autoencoder (Aytar et al. 2016)", 0.399, _OLDER),
        Published("random forest (Piczak 2015)", 0.443, _OLDER),
        Published("ConvNet (Piczak 2015)", 0.645, _OLDER),
        Published("SoundNet (Aytar et al. 2016)", 0.742, _PAPER),
        Published("L3-Net, random weights", 0.625, _PAPER),
        Published("L3-Net", 0.793, _PAPER),
        Published("people", 0.813, _PAPER),
    ),
    "esc10": (
        Published("random forest on MFCC (Piczak 2015)", 0.727, _ESC10),
        Published("SoundNet (Aytar et al. 2016)", 0.922, _ESC10),
        Published("people", 0.957, _ESC10),
    ),
    "dcase2013": (
        Published("RG (Rakotomamonjy & Gasso)", 0.69, _OLDER),
        Published("LTT (Li et al.)", 0.72, _OLDER),
        Published("RNH (Roma et al.)", 0.77, _OLDER),
        Published("ensemble of the challenge", 0.78, _OLDER),
        Published("SoundNet (Aytar et al. 2016)", 0.88, _PAPER),
        Published("L3-Net, random weights", 0.85, _PAPER),
        Published("L3-Net", 0.93, _PAPER),
    ),
    # Cramer et al. 2019; a multi-layer classifier there, not this protocol.
    "urbansound8k": (Published("OpenL3, mel256, music (Cramer et al. 2019)", 0.782, _RECALLED),),
    # Section 4.2, table 3 of the paper.
    "imagenet": (
        Published("random weights (AlexNet)", 0.183, _RECALLED),
        Published("Pathak et al. 2016", 0.223, _RECALLED),
        Published("Krähenbühl et al. 2016", 0.245, _RECALLED),
        Published("Donahue et al. 2017", 0.322, _RECALLED),
        Published("Doersch et al. 2015", 0.317, _PAPER),
        Published("Zhang et al. 2016", 0.326, _PAPER),
        Published("Noroozi & Favaro 2016", 0.347, _PAPER),
        Published("L3-Net, random weights", 0.129, _PAPER),
        Published("L3-Net", 0.323, _PAPER),
    ),
}
