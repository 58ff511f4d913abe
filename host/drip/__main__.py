"""``python -m drip`` is ``drip``."""

from __future__ import annotations

import sys

from drip.cli import main

if __name__ == "__main__":
    sys.exit(main())
