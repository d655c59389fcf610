"""electra-dist: pre-train ELECTRA encoders on any number of nodes.

The library is `electra_dist.api`; its functions are attributes of this package, loaded when they
are first asked for. The command line is `electra_dist.cli`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from electra_dist.api import (
        CheckpointError,
        ConfigError,
        DataError,
        Document,
        Embeddings,
        Networks,
        Predictions,
        Shards,
        Split,
        TrainedRun,
        UserError,
        build_networks,
        clean_corpus,
        embed_texts,
        evaluate_pair,
        evaluate_run,
        export_run,
        find_suspects,
        finetune_model,
        judge,
        load_config,
        load_networks,
        open_shards,
        predict,
        read_metrics,
        stream_steps,
        train_run,
    )

#: Also that of the package (pyproject.toml); here, so that it is known where nothing is installed.
__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Document",
    "Embeddings",
    "Networks",
    "Predictions",
    "Shards",
    "Split",
    "TrainedRun",
    "UserError",
    "__version__",
    "build_networks",
    "clean_corpus",
    "embed_texts",
    "evaluate_pair",
    "evaluate_run",
    "export_run",
    "find_suspects",
    "finetune_model",
    "judge",
    "load_config",
    "load_networks",
    "open_shards",
    "predict",
    "read_metrics",
    "stream_steps",
    "train_run",
]


if not TYPE_CHECKING:  # else a type checker takes any name for one of this package

    def __getattr__(name: str) -> Any:
        """A name of `electra_dist.api`, the first time that it is asked for (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from electra_dist import api

        value = getattr(api, name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
