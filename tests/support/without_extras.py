"""`electra-dist ...` as on a login node: torch and what comes with it cannot be imported.

python without_extras.py status RUN --json
"""

from __future__ import annotations

import sys
from typing import Any

EXTRAS = ("torch", "deepspeed", "transformers", "wandb", "matplotlib", "triton")


class Absent:
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.split(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


if __name__ == "__main__":
    sys.meta_path.insert(0, Absent())  # type: ignore[arg-type]
    from electra_dist.cli import main as cli

    sys.exit(cli.main(sys.argv[1:]))
