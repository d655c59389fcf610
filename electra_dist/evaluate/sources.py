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
    data: RunData, parts: Sequence[HeldOut], seen: Observed
) -> tuple[SourceScores, ...]:
    """Of each source of `data`, in their order; `seen` has the rows of `parts`, one after another.

    Nothing where the data are not mixed. A source without held-out documents has no rows.
    """
    if not data.is_mixed:
        return ()
    of_source = {}
    first = 0
    for part in parts:
        end = first + len(part.rows.keys)
        of_source[part.source] = seen.of_rows(first, end)
        first = end
    found = []
    for source in data.sources:
        own = of_source.get(source.name)
        rows = sum(len(part.rows.keys) for part in parts if part.source == source.name)
        if own is None or not len(own.targets):
            found.append(SourceScores(source.name, rows, None, None, None))
            continue
        entropy = source.manifest.unigram_entropy()
        found.append(
            SourceScores(
                name=source.name,
                rows=rows,
                generator=generator_scores(own, entropy),
                discriminator=discriminator_scores(own),
                standard_errors=standard_errors(own),
            )
        )
    return tuple(found)
