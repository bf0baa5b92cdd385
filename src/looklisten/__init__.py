"""looklisten: learns from unlabeled video with sound what looks and sounds alike (Look, Listen and
Learn, ICCV 2017).

import looklisten as ll

ll.prepare(["videos"], "shards")
ll.train("shards", ll.Config.load("tiny"), "runs/mine")
model = ll.load("runs/mine")
for moment in ll.localize("clip.mp4", model):
    print(moment.at_seconds, moment.probability, moment.frame_map.peak())
"""

import lazy_loader

# A name is imported when it is first used, so that `import looklisten` does not load torch.
# The list of names is `__init__.pyi`.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
