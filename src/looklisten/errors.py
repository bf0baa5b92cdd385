"""What can go wrong, as sentences a user can act on.

LookListenError          what, where, what to do next; the command line prints it, exit code 1
├── ConfigError          a recipe or an option that is not possible
│   ├── OptionError      a value that an option never takes; exit code 2
│   └── FolderInUseError a folder in which another process works
├── SourceError          an input file that is not what it should be, with its name
│   ├── TooShortError    nothing is wrong, but image and sound share less than a clip needs
│   └── DecoderLostError the process that decodes crashed over it, or hung and was stopped
├── ShardError           prepared data that is missing, damaged or of another version
├── CheckpointError      a checkpoint that is missing, damaged or of another network
├── StoreError           an index of moments that is missing, damaged or of another network
│   └── StoreInUseError  one that another process is writing
└── PublishedFileError   weights of others that cannot be downloaded, found or read
"""


class LookListenError(Exception):
    """Base of every error that this package raises on purpose; `str(error)` is one sentence."""


class ConfigError(LookListenError):
    """A recipe, option or value that is not possible."""


class OptionError(ConfigError):
    """A value that an option never takes, whatever the files and the machine are.

    `name`: the option, as Python spells it, if the sentence begins with it.
    """

    def __init__(self, sentence: str, name: str = "") -> None:
        super().__init__(sentence)
        self.name = name

    @property
    def as_typed(self) -> str:
        """The sentence with the option as it is typed in a shell."""
        if not self.name or not str(self).startswith(self.name):
            return str(self)
        return f"--{self.name.replace('_', '-')}{str(self).removeprefix(self.name)}"


class FolderInUseError(ConfigError):
    """A folder in which another process works."""


class SourceError(LookListenError):
    """An input that cannot be read as what it should be."""


class TooShortError(SourceError):
    """A correct file whose image and sound share less than a clip needs."""


class DecoderLostError(SourceError):
    """An input that crashed the process that decodes, or over which it hung (`hung`)."""

    def __init__(self, sentence: str, hung: bool = False) -> None:
        super().__init__(sentence)
        self.hung = hung


class ShardError(LookListenError):
    """Prepared data that is missing, damaged or of another version."""


class CheckpointError(LookListenError):
    """A checkpoint that is missing, damaged or of another network."""


class PublishedFileError(LookListenError):
    """Weights that others publish and that cannot be downloaded, found or read."""


class StoreError(LookListenError):
    """An index of moments that is missing, damaged, of another network, or not writable."""


class StoreInUseError(StoreError):
    """An index that another process is writing."""
