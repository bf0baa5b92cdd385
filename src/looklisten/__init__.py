"""looklisten learns from unlabeled video what looks and sounds alike (L3-Net, ICCV 2017).

import looklisten as ll

ll.prepare(["videos"], "shards")
ll.train("shards", ll.Config.load("tiny"), "runs/mine")
model = ll.load("runs/mine")
for localization in ll.localize("clip.mp4", model):
    print(localization.at_seconds, localization.probability, localization.frame_map.peak())
"""

import lazy_loader

# A name is imported when it is first used, so that `import looklisten` does not load torch.
# The list of names is `__init__.pyi`.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
