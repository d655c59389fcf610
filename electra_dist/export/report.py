"""What came of an export, in numbers and in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from electra_dist.config import Network
from electra_dist.export.check import Compared
from electra_dist.export.onnx.report import OnnxReport


@dataclass(frozen=True)
class ExportReport:
    """What was exported, and what the check compared.

    positions  tokens of the longest text that the model takes
    onnx       the graphs; None where none were asked for
    """

    out: Path
    run: str
    network: Network
    step: int
    parameters: int
    positions: int
    check: Compared
    onnx: OnnxReport | None

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "out": str(self.out)}

    def summary(self) -> str:
        """Three lines for the terminal, and one a graph."""
        lines = [
            f"{self.out}: {self.network} of {self.run} at step {self.step}, {self.parameters:,}"
            " parameters in fp32",
            f"checked: {self.check.sentence()}",
            f"load it with transformers.{self.check.auto_class}.from_pretrained({str(self.out)!r})",
        ]
        if self.onnx is not None:
            lines += self.onnx.lines()
        return "\n".join(lines)
