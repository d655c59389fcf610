"""Configurations: from a file, a recipe or a dictionary."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from electra_dist.errors import ConfigError

if TYPE_CHECKING:
    from electra_dist.config import Config

Overrides = Sequence[str] | Mapping[str, Any]


def load_config(source: str | Path | Mapping[str, Any], overrides: Overrides = ()) -> Config:
    """A checked configuration, with presets and defaults filled in.

    Args:
        source: a YAML file; or the name of a recipe that comes with the program, such as
            `quickstart`; or a dictionary of sections, as the YAML file has them.
        overrides: keys set in place of those of `source`: `["optim.lr=1e-3"]` as on the command
            line, or `{"optim.lr": 1e-3}`.

    Returns:
        The frozen `Config`. Its sections and keys are those of the YAML file.

    Raises:
        ConfigError: no such file or recipe, an unknown key, a wrong value, a combination that
            cannot be.

    Examples:
        >>> config = electra_dist.load_config("quickstart", {"train.steps": 200})
        >>> config.optim.lr
    """
    from electra_dist import config as configuration
    from electra_dist.config.recipes import recipe_names, recipe_path

    words = _override_words(overrides)
    if isinstance(source, Mapping):
        try:
            tree = configuration.apply_overrides(source, words)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"`source`: holds what a YAML file cannot hold: {error}; give plain values"
            ) from error
        return _with_known_metrics(configuration.build(tree))
    path = Path(source)
    if isinstance(source, str) and source in recipe_names() and not path.exists():
        path = recipe_path(source)
    elif isinstance(source, str) and not path.suffix and not path.exists():
        raise ConfigError(
            f"`source` {source!r}: neither a file nor a recipe; recipes are:"
            f" {', '.join(recipe_names())}"
        )
    return _with_known_metrics(configuration.load(path, words))


def _with_known_metrics(config: Config) -> Config:
    """`config`, whose keys that name a metric name one; raises `ConfigError`."""
    from electra_dist.runs.heldout.best import check_metrics

    check_metrics(config)
    return config


def _override_words(overrides: Overrides) -> list[str]:
    """`key.sub=value` words; a value of a dictionary is written as JSON, which is YAML."""
    if isinstance(overrides, str):
        raise ConfigError(f"`overrides` {overrides!r}: expected a list of them, or a dictionary")
    if not isinstance(overrides, Mapping):
        return list(overrides)
    try:
        return [f"{key}={json.dumps(value, default=os.fspath)}" for key, value in overrides.items()]
    except TypeError as error:
        raise ConfigError(f"`overrides`: {error}; give numbers, texts, lists or None") from error
