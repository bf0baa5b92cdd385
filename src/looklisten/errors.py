"""What can go wrong, as sentences a user can act on.

LookListenError            what, where, what to do next; the shell prints it and exits with 1 ├──
ConfigError            a recipe or an option that cannot be ├── SourceError            an input file
that is not what it should be (its name is in the sentence) │   ├── TooShortError      nothing wrong
with it, but its picture and sound share less than a clip needs │   └── DecoderLostError   reading
it ended the process that decodes: it crashed, or hung and was stopped ├── ShardError
prepared data that is missing, damaged or of another version └── CheckpointError        a checkpoint
that is missing, damaged or of another network
"""


class LookListenError(Exception):
    """Base of every error this package raises on purpose; `str(error)` is one sentence for people."""


class ConfigError(LookListenError):
    """A recipe, key or value that cannot be."""


class SourceError(LookListenError):
    """An input that cannot be read as what it should be."""


class TooShortError(SourceError):
    """A whole file whose picture and sound share less than a clip needs."""


class DecoderLostError(SourceError):
    """An input that crashed the process that decodes, or over which it hung and was stopped
    (`hung`).
    """

    def __init__(self, sentence: str, hung: bool = False) -> None:
        super().__init__(sentence)
        self.hung = hung


class ShardError(LookListenError):
    """Prepared data that is missing, damaged or of another version."""


class CheckpointError(LookListenError):
    """A checkpoint that is missing, damaged or of another network."""
