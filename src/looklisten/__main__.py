"""`python -m looklisten` is the same as the command `looklisten`."""

import sys

from looklisten.app.cli import main

if __name__ == "__main__":
    sys.exit(main())
