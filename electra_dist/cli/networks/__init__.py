"""Subcommands for the networks of a run: evaluate, export, finetune, embed, predict, serve."""

__all__ = ["embed", "evaluate", "export", "finetune", "predict", "serve"]
