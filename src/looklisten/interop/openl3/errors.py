"""What OpenL3's door refuses and what it remarks on, under OpenL3's names."""

from looklisten.errors import LookListenError


class OpenL3Error(LookListenError):
    """An input, an argument or a weight file that cannot be."""


class OpenL3Warning(UserWarning):
    """An input that is strange, and embedded all the same."""
