"""`python -m electra_dist`: the command, where it is not installed."""

import sys

from electra_dist.cli import main

sys.exit(main())
