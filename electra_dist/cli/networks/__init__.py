"""Subcommands for the networks of a run: evaluate, export, finetune, search, embed, predict,
serve.
"""

__all__ = ["embed", "evaluate", "export", "finetune", "predict", "search", "serve"]
