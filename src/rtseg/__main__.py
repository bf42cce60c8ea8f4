"""`python -m rtseg` is the command `rtseg`."""

from __future__ import annotations

import sys

from rtseg.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
