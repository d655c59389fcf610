"""`python -m electra_dist.tracking.wandb RUN`: the process that mirrors metrics.jsonl to W&B."""

from __future__ import annotations

from electra_dist.tracking.wandb.process import main

main()
