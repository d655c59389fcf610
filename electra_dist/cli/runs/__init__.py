"""Subcommands of a run: train, launch, watch, status, logs, stop, checkpoint, report, wandb."""

__all__ = ["checkpoint", "launch", "report", "status", "train", "wandb", "watch"]
