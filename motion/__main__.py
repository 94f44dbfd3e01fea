"""`python -m motion`: the command line of the embedded host."""

from __future__ import annotations

import sys

from motion.standalone.cli import main

if __name__ == "__main__":
    sys.exit(main())
