"""``python -m igc_ref`` is the command ``igc-ref``."""

import sys

from igc_ref.cli import main

if __name__ == "__main__":
    sys.exit(main())
