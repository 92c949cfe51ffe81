"""Command line: `python -m distill_lib.datasets check`."""

import sys

from distill_lib.datasets.prepare import main

if __name__ == "__main__":
    sys.exit(main())
