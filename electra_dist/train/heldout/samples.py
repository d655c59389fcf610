"""Samples for people: a few held-out passages, always the same ones, as both networks see them now.

Comes in: the engines, between two steps. Goes out: the file of the step in RUN/samples, written by
rank 0. Every rank takes its share of the few rows that the passages lie in, so that it works at any
ZeRO stage. It is a bystander: a file that cannot be written is a warning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from electra_dist.config import Config
from electra_dist.console import warn
from electra_dist.data.rows import KeyedRows
from electra_dist.data.sources import RunData, has_validation
from electra_dist.data.step_plan import RowFormat
from electra_dist.data.validation import HeldOut, deal, held_out
from electra_dist.errors import UserError
from electra_dist.files.writing import reason
from electra_dist.parallel import signs
from electra_dist.parallel.collectives import gather_objects
from electra_dist.parallel.world import World
from electra_dist.runs.directory import RunDir
from electra_dist.runs.heldout.samples import (
    MOST_PASSAGES,
    SamplePassage,
    SamplePiece,
    Samples,
    write_samples,
)
from electra_dist.train.heldout.passages import (
    Passage,
    Place,
    answers_of,
    open_tokenizer,
    passage_at,
    places_in,
    token_text,
)
from electra_dist.train.step import forward_step
from electra_dist.zero.engines import Engines

#: Rows of a source among which its passages are looked for, at most.
_MOST_ROWS = 64


@dataclass(frozen=True)
class _Chosen:
    """Passages of one source: the rows that they lie in, and where, by the number of the row among
    these.
    """

    source: str
    rows: KeyedRows
    places: tuple[Place, ...]


class Sampler:
    """The samples of one run."""

    def __init__(
        self, config: Config, data: RunData, engines: Engines, run: RunDir, world: World
    ) -> None:
        self._config = config
        self._data = data
        self._engines = engines
        self._run = run
        self._world = world
        self._chosen: list[_Chosen] | None = None
        self._tokenizer: Any = None

    def is_due(self, step: int, validated: bool) -> bool:
        """Whether there are some after `step`; `validated` says that its validation
        asks, otherwise the step itself.
        """
        every = self._config.tracking.samples_every
        if every is None:
            due = validated
        else:
            due = bool(every and not validated and step % every == 0)
        return due and has_validation(self._data)

    def write(self, step: int) -> None:
        """Write the samples after `step`; every rank must call it."""
        with signs.phase("validation", step):
            found = [
                (number, entry)
                for number, chosen in enumerate(self._choice())
                for entry in self._share(chosen)
            ]
            gathered = gather_objects(found, self._world)
            if self._world.is_main:
                self._write(step, [entry for rank in gathered for entry in rank])

    # --- which ones -------------------------------------------------------------------------------

    def _choice(self) -> list[_Chosen]:
        """The passages of every source, the same on every rank and at every step."""
        if self._chosen is None:
            row_format = RowFormat.of(self._config)
            parts = held_out(self._data, row_format, self._config.validation.rows)
            each = max(1, MOST_PASSAGES // max(1, len(parts)))
            found = [self._choose(part, row_format, each) for part in parts[:MOST_PASSAGES]]
            self._chosen = [one for one in found if one.places]
        return self._chosen

    def _choose(self, part: HeldOut, row_format: RowFormat, count: int) -> _Chosen:
        """The first passage of each row, of the first rows that have one."""
        first_rows = part.rows.take(slice(0, _MOST_ROWS))
        rows: list[int] = []
        places: list[Place] = []
        before = 0
        for batch in deal(first_rows, row_format, self._data.special_tokens, 0, 1):
            for place in places_in(batch):
                row = before + place.row
                if len(places) < count and row not in rows:
                    places.append(place._replace(row=len(rows)))
                    rows.append(row)
            before += len(batch.tokens)
        chosen = part.rows.take(np.array(rows, dtype=np.int64))
        return _Chosen(part.source, chosen, tuple(places))

    # --- what the networks say --------------------------------------------------------------------

    def _share(self, chosen: _Chosen) -> list[list[Any]]:
        """The passages in this rank's rows, each with its number, as JSON has them."""
        world = self._world
        found = []
        row_format = RowFormat.of(self._config)
        specials = self._data.special_tokens
        number = world.rank
        for batch in deal(chosen.rows, row_format, specials, world.rank, world.world_size):
            forwarded = forward_step(self._engines, batch, self._config, looks=True)
            signs.sign()
            answers = answers_of(forwarded)
            for row in range(len(batch.tokens)):
                if number < len(chosen.places):
                    place = chosen.places[number]._replace(row=row)
                    found.append([number, passage_at(place, batch, answers).to_json()])
                number += world.world_size
        return found

    # --- rank 0 -----------------------------------------------------------------------------------

    def _write(self, step: int, found: list[Any]) -> None:
        try:
            if self._tokenizer is None:
                self._tokenizer = open_tokenizer(self._run.tokenizer)
            chosen = self._choice()
            passages = tuple(
                SamplePassage(chosen[source].source, self._pieces(Passage.from_json(content)))
                for source, (_, content) in sorted(found, key=lambda one: (one[0], one[1][0]))
            )
            write_samples(self._run, Samples(step, passages))
        except UserError as error:
            warn(f"step {step}: no samples: {error}")
        except OSError as error:
            warn(f"step {step}: the samples cannot be written: {reason(error)}")

    def _pieces(self, passage: Passage) -> tuple[SamplePiece, ...]:
        judged = passage.probability_of_replaced
        before = passage.before
        found = []
        for at, original in enumerate(passage.tokens.tolist()):
            shown = int(passage.corrupted[at])
            text = token_text(self._tokenizer, before, shown)
            masked = bool(passage.masked[at])
            found.append(
                SamplePiece(
                    text=text,
                    original=token_text(self._tokenizer, before, original) if masked else None,
                    sampled=text if masked else None,
                    generator_probability=float(passage.probabilities[at]) if masked else None,
                    replaced=original != shown,
                    discriminator_probability=float(judged[at]),
                )
            )
            before = original
        return tuple(found)
