"""The verb `doctor`."""

from looklisten.app.output import Result


def doctor() -> Result:
    """What this installation can do and what is missing for what. Exit code 1 when a verb lacks
    something.
    """
    from looklisten.app.doctor import doctor as examine

    return examine()
