"""What came of an ONNX export, in numbers and in words."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from electra_dist.export.onnx.check import GraphCheck
from electra_dist.finetune.runners.onnx_runner import GRAPH, INT8_GRAPH


@dataclass(frozen=True)
class OnnxReport:
    """The graphs of a folder.

    weights     SHA-256 of the weights that they were made of
    software    versions of what wrote them
    sizes       bytes of each graph
    check       of the fp32 graph
    int8_check  of the int8 graph; None where there is none
    """

    weights: str
    software: dict[str, str]
    sizes: dict[str, int]
    check: GraphCheck
    int8_check: GraphCheck | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """One line a graph, for the terminal."""
        found = [self._line(GRAPH, self.check)]
        if self.int8_check is not None:
            found.append(self._line(INT8_GRAPH, self.int8_check))
        return found

    def _line(self, name: str, check: GraphCheck) -> str:
        return f"{name}: {self.sizes[name] / 1e6:.1f} MB; {check.sentence()}"

    def card_section(self) -> str:
        """The part of a model card, from its heading on."""
        found = [
            "## ONNX",
            "",
            "Graphs for onnxruntime, transformers.js and text-embeddings-inference, compared with"
            " PyTorch:",
            "",
            *(f"- `{line.replace(': ', '`: ', 1)}." for line in self.lines()),
        ]
        if self.int8_check is not None:
            found += [
                "",
                "The int8 graph quantises its activations per batch, so its outputs depend slightly"
                " on what shares a batch.",
            ]
        return "\n".join(found) + "\n"


def with_section(card: str, section: str) -> str:
    """A model card with `section` at its end; an earlier section of this heading is taken out."""
    heading = section.partition("\n")[0]
    earlier = rf"^{re.escape(heading)}\n.*?(?=^## |\Z)"
    rest = re.sub(earlier, "", card, flags=re.MULTILINE | re.DOTALL)
    return f"{rest.rstrip()}\n\n{section}"
