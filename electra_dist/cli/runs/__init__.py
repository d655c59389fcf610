"""Subcommands of a run: train, launch, status, logs, stop, checkpoint, report, sync."""

__all__ = ["checkpoint", "launch", "report", "status", "sync", "train", "watch"]
