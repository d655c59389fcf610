"""What is evaluated: the networks of a run's checkpoint, or an exported pair.

Comes in: a path. Goes out: a `Subject`, which knows how its rows are made and masked, its
tokenizer, and how to load its networks. Rank 0 chooses the checkpoint; the others load the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

from electra_dist import config as configuration
from electra_dist.checkpoint.networks import ChosenStep, choose_step, load_networks, load_whole
from electra_dist.config import Config
from electra_dist.data.shards.files import sha256_of_file
from electra_dist.data.sources import RunData, open_data
from electra_dist.evaluate.heldout import Networks
from electra_dist.files.tokenizers import TOKENIZER_FILE
from electra_dist.runs.directory import RunDir


class Loaded(NamedTuple):
    """Networks on the CPU, and the step that they are of; None where nothing says it."""

    step: int | None
    networks: Networks


class Subject(Protocol):
    """Both networks of somebody."""

    @property
    def path(self) -> Path:
        """Where they lie."""

    @property
    def tokenizer(self) -> Path:
        """The folder with their tokenizer.json."""

    @property
    def tokenizer_fingerprint(self) -> str:
        """Of the tokenizer.json that their shards were encoded with."""

    @property
    def config(self) -> Config:
        """How they are built, and how their held-out rows are made and masked."""

    @property
    def data_fingerprint(self) -> str | None:
        """Of the shards that they were trained on; None where nothing says it."""

    def check(self) -> None:
        """Raise `UserError` for what cannot be loaded, before the shards are read."""

    def own_data(self) -> RunData:
        """The shards that they were trained on; raises `UserError` where they are not known."""

    def load(self) -> Loaded:
        """The networks."""

    def load_step(self, step: int | None) -> Networks:
        """The networks of that step: what `load` has chosen on another rank."""


@dataclass(frozen=True)
class RunSubject:
    """A checkpoint of a run; None: the newest whole one. A `Subject`."""

    run: RunDir
    step: ChosenStep | None

    @property
    def path(self) -> Path:
        """As in `Subject`."""
        return self.run.path

    @property
    def tokenizer(self) -> Path:
        """As in `Subject`."""
        return self.run.tokenizer

    @property
    def tokenizer_fingerprint(self) -> str:
        """As in `Subject`."""
        return sha256_of_file(self.tokenizer / TOKENIZER_FILE)

    @cached_property
    def config(self) -> Config:
        """As in `Subject`."""
        return configuration.load(self.run.config)

    @cached_property
    def data_fingerprint(self) -> str | None:
        """As in `Subject`."""
        return self.run.read_facts().dataset_fingerprint

    def check(self) -> None:
        """As in `Subject`."""
        choose_step(self.run, self.step)

    def own_data(self) -> RunData:
        """As in `Subject`."""
        return open_data(self.config)

    def load(self) -> Loaded:
        """As in `Subject`."""
        step, generator, discriminator = load_whole(self.run, self.config, self.step)
        return Loaded(step, Networks(generator, discriminator))

    def load_step(self, step: int | None) -> Networks:
        """As in `Subject`."""
        assert step is not None, "a checkpoint has a step"
        return Networks(*load_networks(self.run, self.config, step))
