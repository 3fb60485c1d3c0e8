"""``python -m igc_ref`` is the command ``igc-ref``."""

import sys

from igc_ref.cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
