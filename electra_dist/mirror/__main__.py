"""`python -m electra_dist.mirror RUN`: the process that mirrors metrics.jsonl to W&B."""

from __future__ import annotations

from electra_dist.mirror.process import main

main()
