"""The library: everything that the commands do, as typed functions for a notebook or a script.

    load_config     a configuration from a file, a recipe or a dictionary
    clean_corpus    filters over text, and a report of what they dropped
    open_shards     what a folder of shards holds, and its documents as text
    stream_steps    the steps that training takes, as numpy arrays
    build_networks  both networks as a run starts with them
    load_networks   both networks of a checkpoint
    judge           both networks over one micro-batch
    train_run       train, or go on with, a run
    read_metrics    what a run has logged
    evaluate_run    both networks on held-out text
    evaluate_pair   the same for exported networks
    export_run      weights for `transformers`
    finetune_model  teach an exported discriminator a task
    predict         what a model makes of texts
    find_suspects   the words of texts that do not belong there
    embed_texts     vectors of texts

    import electra_dist

    config = electra_dist.load_config("quickstart", {"train.steps": 200})
    trained = electra_dist.train_run(config)
    print(electra_dist.evaluate_run(trained.path).discriminator.auc)

All of them are attributes of the package `electra_dist`. They call what the commands call and add
nothing to it. A mistake raises a `UserError` that names the argument; nothing is printed to
standard output unless `verbose` asks for it, and no function ends the process. (`train_run` has a
watchdog that does, for a run that hangs.) Paths may be `str` or `Path`.

This module is light: it imports torch and the rest when a function needs them.
"""

from electra_dist.api.cleaning import clean_corpus
from electra_dist.api.configuration import load_config
from electra_dist.api.embeddings import Embeddings, embed_texts
from electra_dist.api.networks import Networks, build_networks, judge, load_networks
from electra_dist.api.runs import (
    TrainedRun,
    evaluate_pair,
    evaluate_run,
    export_run,
    read_metrics,
    train_run,
)
from electra_dist.api.shards import Document, Shards, Split, open_shards, stream_steps
from electra_dist.api.suspects import find_suspects
from electra_dist.api.tasks import Predictions, finetune_model, predict
from electra_dist.errors import CheckpointError, ConfigError, DataError, UserError

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
