"""Subcommands for the networks of a run: evaluate, export, finetune, search, predict."""

__all__ = ["evaluate", "export", "finetune", "predict", "search"]
