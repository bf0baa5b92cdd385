"""A procedural world of things that look and sound: `looks` x `voices` -> `scenes` -> `world`, files with known truth."""

from looklisten.media.synth.scenes import CLASSES
from looklisten.media.synth.world import World, synth

__all__ = ["CLASSES", "World", "synth"]
