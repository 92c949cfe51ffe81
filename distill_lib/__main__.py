"""`python -m distill_lib` is `distill`."""

import sys

from distill_lib.cli import main

if __name__ == "__main__":  # which Dask's workers import under another name
    sys.exit(main())
