"""Subcommands for the networks of a run: evaluate, export, finetune, predict, serve."""

__all__ = ["evaluate", "export", "finetune", "predict", "serve"]
