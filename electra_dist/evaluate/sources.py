"""Scores by source, where the data are mixed: how the networks do on each of them.

Comes in: what the networks said of all held-out rows, source after source. Goes out: for each
source of the data the scores of both networks on its own rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from electra_dist.data.sources import RunData
from electra_dist.data.validation import HeldOut
from electra_dist.evaluate.heldout import Observed
from electra_dist.evaluate.scores import (
    DiscriminatorScores,
    GeneratorScores,
    discriminator_scores,
    generator_scores,
)
from electra_dist.evaluate.uncertainty import StandardErrors, standard_errors
from electra_dist.evaluate.vocabulary import Confusion


@dataclass(frozen=True)
class SourceScores:
    """Both networks on the held-out rows of one source; the scores are None where it has no row
    with a token that can be masked.
    """

    name: str
    rows: int
    generator: GeneratorScores | None
    discriminator: DiscriminatorScores | None
    standard_errors: StandardErrors | None


def source_scores(
    data: RunData, parts: Sequence[HeldOut], seen: Observed, confusions: Sequence[Confusion]
) -> tuple[SourceScores, ...]:
    """Of each source of `data`, in their order; `seen` has the rows of `parts`, one after another,
    and there is one of `confusions` for each part.

    Nothing where the data are not mixed. A source without held-out documents has no rows.
    """
    if not data.is_mixed:
        return ()
    of_source = {}
    first = 0
    for part, confusion in zip(parts, confusions, strict=True):
        end = first + len(part.rows.keys)
        of_source[part.source] = (end - first, seen.of_rows(first, end), confusion)
        first = end
    found = []
    for source in data.sources:
        if source.name in of_source:
            rows, own, confusion = of_source[source.name]
            entropy = source.manifest.unigram_entropy()
            found.append(_scores(source.name, rows, own, confusion, entropy))
        else:
            found.append(SourceScores(source.name, 0, None, None, None))
    return tuple(found)


def _scores(
    name: str, rows: int, own: Observed, confusion: Confusion, unigram_entropy: float
) -> SourceScores:
    if not len(own.targets):
        return SourceScores(name, rows, None, None, None)
    return SourceScores(
        name=name,
        rows=rows,
        generator=generator_scores(own, confusion, unigram_entropy),
        discriminator=discriminator_scores(own),
        standard_errors=standard_errors(own),
    )
