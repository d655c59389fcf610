"""All held-out rows through both networks, on one rank or on many, with one and the same result.

Comes in: the networks of a rank, the held-out rows of every source. Goes out: `Heard`, on rank 0,
with the answers of all ranks in the order of the rows.

Ranks get whole micro-batches (`deal_whole`), the same ones whatever the world size, and compute
each as the others would (`lanes`). Answers are gathered and put in order before anything is summed;
counts are whole numbers. The trainer's own sums are one fp32 number per micro-batch, added in fp64:
that is exact, in any order, as long as the largest sum is below some 2^29 of the smallest number.
So N ranks give the numbers of one, bit by bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import NamedTuple

from electra_dist.console import Progress
from electra_dist.data.sources import RunData
from electra_dist.data.step_plan import RowFormat
from electra_dist.data.validation import DealtBatch, HeldOut, deal_whole
from electra_dist.evaluate.heldout import Judged, Networks, Observed, judge
from electra_dist.evaluate.lanes import in_order
from electra_dist.evaluate.vocabulary import Confusion
from electra_dist.model.inputs import to_device
from electra_dist.objectives import objectives
from electra_dist.parallel.collectives import gather_arrays, gather_objects
from electra_dist.parallel.world import World
from electra_dist.runs.metrics import HELD_OUT, Metrics
from electra_dist.train.heldout.passages import Passage, passages_of
from electra_dist.train.window import Window

#: Rows among which the passages to read are chosen, at most.
_PASSAGE_ROWS = 512


class Heard(NamedTuple):
    """What the networks said of all rows.

    seen        token by token, in the order of the rows
    confusions  the most likely tokens, counted for each source that has rows
    metrics     those of a validation in training
    passages    of the first rows, where they were asked for
    """

    seen: Observed
    confusions: list[Confusion]
    metrics: Metrics
    passages: list[Passage]


class Observer:
    """Gives this rank's rows to both networks, and gathers what all ranks have heard."""

    def __init__(
        self,
        networks: Networks,
        row_format: RowFormat,
        data: RunData,
        world: World,
        readable: bool,
    ) -> None:
        """`readable` asks for passages."""
        self._networks = networks
        self._row_format = row_format
        self._data = data
        self._world = world
        self._readable = readable
        self._observed = [Observed.empty()]
        self._passages: list[tuple[int, Passage]] = []
        self._whole = Window(world.device)
        self._of_sources: dict[str, Window] = {}
        self._confusions: list[Confusion] = []

    def observe(self, parts: Sequence[HeldOut], progress: Progress) -> None:
        """This rank's share of `parts`, source after source; holds no collective."""
        world = self._world
        total = count_rows(parts)
        before = 0
        progress("held-out rows", 0, total)
        for part in parts:
            rows = len(part.rows.keys)
            self._of_sources[part.source] = Window(world.device)
            self._confusions.append(Confusion.empty(self._data.vocab_size))
            for dealt, judged in in_order(self._judge, self._share(part, before), world.device):
                self._take(part.source, dealt, judged)
                of_all_ranks = dealt.first + world.world_size * self._row_format.micro_rows
                progress("held-out rows", min(of_all_ranks, before + rows), total)
            before += rows

    def _share(self, part: HeldOut, before: int) -> Iterator[DealtBatch]:
        """This rank's micro-batches of a source; `before` rows are of other sources."""
        for dealt in deal_whole(
            part.rows,
            self._row_format,
            self._data.special_tokens,
            self._world.rank,
            self._world.world_size,
        ):
            yield dealt._replace(first=before + dealt.first)

    def _judge(self, dealt: DealtBatch) -> tuple[DealtBatch, Judged]:
        batch = to_device(dealt.batch, self._world.device)
        return dealt, judge(self._networks, batch, dealt.first)

    def _take(self, source: str, dealt: DealtBatch, judged: Judged) -> None:
        """Keep what was said of a micro-batch."""
        for window in (self._whole, self._of_sources[source]):
            window.add(judged.totals, (dealt.batch,))
        self._observed.append(judged.observed)
        self._confusions[-1].add(judged.observed.targets, judged.likeliest)
        if self._readable and dealt.first < _PASSAGE_ROWS:
            found = passages_of(dealt.batch, judged.answers)
            self._passages += [(dealt.first, passage) for passage in found]

    def gathered(self) -> Heard | None:
        """What all ranks have heard, on rank 0; every rank must call it."""
        world = self._world
        seen = gather_observed(Observed.joined(self._observed), world)
        confusions = [gather_confusion(confusion, world) for confusion in self._confusions]
        metrics = self._metrics()
        passages = self._gathered_passages()
        if seen is None:
            return None
        return Heard(seen, [one for one in confusions if one is not None], metrics, passages)

    def _metrics(self) -> Metrics:
        """The metrics of a validation in training; where the data are mixed, the losses of each
        source too.
        """
        found = self._whole.reduced(self._world).losses(HELD_OUT)
        if self._data.is_mixed:
            for source, window in self._of_sources.items():
                losses = window.reduced(self._world).losses()
                for objective in objectives():
                    loss = objective.loss
                    found[loss.name_held_out_of(source)] = losses[loss.name]
        return found

    def _gathered_passages(self) -> list[Passage]:
        own = [[first, passage.to_json()] for first, passage in self._passages]
        ranks = gather_objects(own, self._world)
        in_order = sorted((entry for rank in ranks for entry in rank), key=lambda one: one[0])
        return [Passage.from_json(content) for _, content in in_order]


def count_rows(parts: Sequence[HeldOut]) -> int:
    """Rows of all sources."""
    return sum(len(part.rows.keys) for part in parts)


def gather_observed(own: Observed, world: World) -> Observed | None:
    """What all ranks have seen, in the order of the rows, on rank 0: the same arrays whatever the
    world size. None on the other ranks.
    """
    arrays = [getattr(own, field.name) for field in fields(Observed)]
    ranks = gather_arrays(arrays, world)
    if ranks is None:
        return None
    whole = Observed.joined([Observed(*rank) for rank in ranks])
    return whole.by_row()


def gather_confusion(own: Confusion, world: World) -> Confusion | None:
    """What all ranks have counted, on rank 0; None on the other ranks."""
    counts = [own.hits_v, own.originals_v, own.likeliest_v]
    ranks = gather_arrays(counts, world)
    if ranks is None:
        return None
    return sum((Confusion(*rank) for rank in ranks), Confusion.empty(len(own.hits_v)))
