"""The verb `doctor`: what this installation can do, as an exit code too."""

from looklisten.app.output import FAILURE, SUCCESS, Output


def run_doctor() -> Output:
    """Report what this installation can do, and which verb lacks something.

    The exit code is 1 if something is missing.
    """
    from looklisten.app.doctor import doctor

    # An exit code lets a script stop before it starts hours of work.
    report = doctor()
    return Output(report, SUCCESS if report["ready"] else FAILURE)
