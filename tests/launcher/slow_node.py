"""The preflight on a cluster where node n2 computes at a hundredth of the speed.

python slow_node.py CONFIG --bad-nodes FILE
"""

from __future__ import annotations

import os
import sys

from electra_dist import preflight

if __name__ == "__main__":
    if os.environ["SLURMD_NODENAME"] == "n2":
        honest = preflight.matrix_product_rate
        preflight.matrix_product_rate = lambda *arguments: honest(*arguments) / 100  # type: ignore[assignment]
    sys.exit(preflight.main())
