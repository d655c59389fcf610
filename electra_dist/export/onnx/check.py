"""The check of a graph: its outputs against those of the PyTorch model, row by row.

The graph runs padded batches of rows of many lengths; the model runs every row alone, without
padding. Outputs of padding count nowhere.

An int8 graph differs by design. What is measured is how often it decides the same: the class, the
token, the sign of a logit that says "replaced".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from electra_dist.errors import UserError
from electra_dist.finetune.runners.onnx_runner import INPUTS
from electra_dist.finetune.runners.runner import Features, Output

#: An fp32 output may differ by this much, times the largest output where that is above 1.
TOLERANCE = 1e-4
#: An int8 graph that decides the same less often is warned of.
EXPECTED_AGREEMENT = 0.99

Batches = Sequence[Sequence[dict[str, Any]]]


class BatchRunner(Protocol):
    """A graph ready to run."""

    def run_batch(self, features: Features) -> list[Output]:
        """The outputs of each example of one batch."""


@dataclass(frozen=True)
class GraphCheck:
    """What was compared, and how far the outputs of a graph lie from those of PyTorch.

    max_difference  the largest, of `values` outputs whose largest is `largest`
    decisions       how many argmaxes or signs were compared; 0 where the outputs decide nothing
    agreement       the share of decisions that are the same; None without decisions
    """

    source: str
    batches: int
    rows: int
    tokens: int
    values: int
    max_difference: float
    largest: float
    decisions: int
    agreement: float | None

    @property
    def tolerance(self) -> float:
        """The largest difference that an fp32 graph may have."""
        return TOLERANCE * max(1.0, self.largest)

    def sentence(self) -> str:
        """One line for the terminal and the model card."""
        compared = (
            f"{self.values:,} outputs on {self.rows} rows in {self.batches} batches,"
            f" {self.tokens:,} tokens of {self.source}: largest difference"
            f" {self.max_difference:.1e} (largest output {self.largest:.1f})"
        )
        if self.agreement is None:
            return compared
        return f"{compared}, {self.agreement:.2%} of {self.decisions:,} decisions the same"


def expected_outputs(model: Any, batches: Batches) -> list[Output]:
    """The outputs of the PyTorch model, row by row without padding."""
    import torch

    found = []
    with torch.inference_mode():
        for row in _rows(batches):
            ids = torch.tensor([row["input_ids"]])
            segments = torch.tensor([row["token_type_ids"]])
            given = dict(zip(INPUTS, (ids, torch.ones_like(ids), segments), strict=True))
            found.append(tuple(output[0].numpy() for output in model(**given).values()))
    return found


def check_graph(
    runner: BatchRunner, batches: Batches, expected: Sequence[Output], source: str, by_sign: bool
) -> GraphCheck:
    """Run the batches and compare; `by_sign` says that an output decides by its sign.

    Raises `UserError` where the graph gives outputs of other shapes.
    """
    found: list[Output] = []
    for batch in batches:
        found += runner.run_batch(batch)
    shapes = [[output.shape for output in row] for row in found]
    expected_shapes = [[output.shape for output in row] for row in expected]
    if shapes != expected_shapes:
        raise UserError(
            f"`onnx`: the graph gives outputs of shapes {shapes[0]}, PyTorch {expected_shapes[0]};"
            " nothing was written, please report this"
        )
    ours = [output for row in expected for output in row]
    theirs = [output for row in found for output in row]
    equal = [
        decided
        for one, other in zip(ours, theirs, strict=True)
        for decided in np.atleast_1d(_decisions(one, by_sign) == _decisions(other, by_sign))
    ]
    rows = list(_rows(batches))
    agreement = None
    if equal:
        agreement = float(np.mean(equal))
    return GraphCheck(
        source=source,
        batches=len(batches),
        rows=len(rows),
        tokens=sum(len(row["input_ids"]) for row in rows),
        values=sum(output.size for output in ours),
        max_difference=float(
            np.max([np.abs(one - other).max() for one, other in zip(ours, theirs, strict=True)])
        ),
        largest=float(np.max([np.abs(output).max() for output in ours])),
        decisions=len(equal),
        agreement=agreement,
    )


def _rows(batches: Batches) -> list[dict[str, Any]]:
    return [row for batch in batches for row in batch]


def _decisions(output: np.ndarray[Any, Any], by_sign: bool) -> np.ndarray[Any, Any]:
    """What an output of one row decides: signs, or places of the largest along the last axis; none
    where there is nothing to choose from.
    """
    if by_sign:
        return output > 0
    if output.shape[-1] == 1:
        return np.zeros(0)
    return np.asarray(output.argmax(axis=-1))
