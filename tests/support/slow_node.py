"""The preflight on a cluster where node n2 computes at a hundredth of the speed.

python slow_node.py CONFIG --bad-nodes FILE
"""

from __future__ import annotations

import os
import sys
from typing import Any

from electra_dist.cli import main as cli
from electra_dist.measure import preflight
from electra_dist.parallel.hardware import ProductRate

if __name__ == "__main__":
    if os.environ["SLURMD_NODENAME"] == "n2":
        honest = preflight.product_rate

        def slow(*arguments: Any) -> ProductRate:
            rate = honest(*arguments)
            return ProductRate(rate.cold / 100, rate.warm / 100)

        preflight.product_rate = slow
    sys.exit(cli.main(["preflight", *sys.argv[1:]]))
