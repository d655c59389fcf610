"""How often a run went back from a divergence, and past which rows: entries of run.json, and of
every checkpoint after.

`electra_dist.train.divergence.rollback` makes them; `status` and `report` show them. Knows no
torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from electra_dist.errors import UserError


@dataclass(frozen=True)
class Rollback:
    """One return from a divergence.

    time                UTC
    from_step, to_step  steps done when it was seen, and those of the checkpoint that training went
                        back to (0: none)
    rows                steps of data that are passed over since (`data.skips`): from, and up to
                        (not included)
    reason              what was seen
    settings            names the values of all that a run computes with, to tell a second try from
                        a changed one
    """

    time: str
    from_step: int
    to_step: int
    rows: tuple[int, int]
    reason: str
    settings: str

    def to_json(self) -> dict[str, Any]:
        """For run.json and trainer.json."""
        return asdict(self) | {"rows": list(self.rows)}

    def __str__(self) -> str:
        """For `status` and `report`."""
        if self.to_step:
            back = f"the checkpoint of step {self.to_step}"
        else:
            back = "the start"
        first, stop = self.rows
        return (
            f"{self.time}, from step {self.from_step} to {back}, past data steps {first} to"
            f" {stop - 1}: {self.reason}"
        )

    def sentence(self, tries: int, most: int) -> str:
        """For the log."""
        if self.to_step:
            back = f"the checkpoint of step {self.to_step}"
        else:
            back = "the start"
        first, stop = self.rows
        return (
            f"training diverged: {self.reason}. Seen after {self.from_step} steps; going back to"
            f" {back}, and past the rows of data steps {first} to {stop - 1} (rollback {tries} of"
            f" at most {most} in a row)"
        )

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Rollback:
        """The inverse; raises KeyError, TypeError or ValueError for something else."""
        first, stop = content["rows"]
        return cls(
            time=str(content["time"]),
            from_step=int(content["from_step"]),
            to_step=int(content["to_step"]),
            rows=(int(first), int(stop)),
            reason=str(content["reason"]),
            settings=str(content["settings"]),
        )


def rollbacks_in(content: Mapping[str, Any]) -> list[Rollback]:
    """The rollbacks that trainer.json lists, oldest first;
    raises `UserError` when they are damaged.
    """
    try:
        return [Rollback.from_json(entry) for entry in content.get("rollbacks", [])]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"the list `rollbacks` of a run: damaged ({error!r}); restore the file that holds it"
        ) from error
