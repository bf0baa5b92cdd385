"""A procedural world of things that look and sound: `looks` x `voices` -> `scenes` -> `world`,
files with known truth.

Or a `collage` of a user's own pictures and sounds.
"""

from looklisten.media.synth.scenes import CLASSES
from looklisten.media.synth.world import World, synth

__all__ = ["CLASSES", "World", "synth"]
