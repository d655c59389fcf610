"""The tasks, a room each; `electra_dist.finetune.registry` has them by name."""

__all__: list[str] = []
