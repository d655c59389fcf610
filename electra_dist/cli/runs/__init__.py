"""Subcommands of a run: train, launch, status, logs, stop, checkpoint, report, wandb."""

__all__ = ["checkpoint", "launch", "report", "train", "wandb", "watch"]
