"""`python -m distill_lib` is `distill`."""

import sys

from distill_lib.cli import main

sys.exit(main())
