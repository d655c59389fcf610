"""Write the tables of metrics in docs/metrics.md from `electra_dist.runs.metrics`.

python docs/make_metrics.py            writes
python docs/make_metrics.py --check    exit status 1 where the page says something else
"""

from __future__ import annotations

import sys
from pathlib import Path

from made import write_or_check

from electra_dist.runs.metrics import Metric, all_metrics

PAGE = Path(__file__).with_name("metrics.md")
_BEGIN = "<!-- made by make_metrics.py: begin -->\n"
_END = "<!-- made by make_metrics.py: end -->\n"
_HEAD = "| key | unit | meaning | formula | in a healthy run |\n|---|---|---|---|---|\n"
#: Before the slash of a name -> the heading of its table.
_SECTIONS = {
    "step": "The step",
    "loss": "Losses",
    "generator": "The generator",
    "discriminator": "The discriminator",
    "optim": "The optimizers",
    "speed": "Speed",
    "memory": "Memory",
    "data": "Data",
    "evaluation": "Full evaluations",
}


def tables() -> str:
    """One section per group of names, one line per metric, and where it comes from."""
    parts = []
    for group, heading in _SECTIONS.items():
        chosen = [one for one in all_metrics() if one.name.partition("/")[0] == group]
        lines = "".join(line(one) for one in chosen)
        parts.append(f"\n## {heading}\n\n{_HEAD}{lines}{sources(chosen)}")
    return "".join(parts)


def line(one: Metric) -> str:
    """A line of a table."""
    cells = (f"`{one.name}`", one.unit, one.meaning, one.formula, one.healthy)
    return "|" + "|".join(f" {cell} ".replace("  ", " ") for cell in cells) + "|\n"


def sources(chosen: list[Metric]) -> str:
    """A list of the sources, each with the metrics that it defines; nothing where there is none."""
    keys: dict[str, list[str]] = {}
    for one in chosen:
        if one.source:
            keys.setdefault(one.source, []).append(f"`{one.name}`")
    if not keys:
        return ""
    lines = [f"- {', '.join(names)}: {source}\n" for source, names in keys.items()]
    return "\nSources:\n\n" + "".join(lines)


def page() -> str:
    """The page with the tables as they should be."""
    text = PAGE.read_text(encoding="utf-8")
    start = text.index(_BEGIN) + len(_BEGIN)
    return text[:start] + tables() + "\n" + text[text.index(_END) :]


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, page()))
