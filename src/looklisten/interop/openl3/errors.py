"""The error and the warning of OpenL3's functions, under OpenL3's names."""

from looklisten.errors import LookListenError


class OpenL3Error(LookListenError):
    """An input, an argument or a weight file that cannot be used."""


class OpenL3Warning(UserWarning):
    """An input that is unusual and is embedded nevertheless."""
