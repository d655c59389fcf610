"""Write the table of metrics in docs/train.md from `electra_dist.runs.metrics`.

python docs/make_metrics.py            writes
python docs/make_metrics.py --check    exit status 1 where the page says something else
"""

from __future__ import annotations

import sys
from pathlib import Path

from made import write_or_check

from electra_dist.runs.metrics import all_metrics

PAGE = Path(__file__).with_name("train.md")
_HEAD = "| key | unit | meaning |\n|---|---|---|\n"
_LAST = "| `validation/loss/generator` ... |"


def table() -> str:
    """One line per metric."""
    lines = []
    for one in all_metrics():
        cells = (f" `{one.name}` ", f" {one.unit} ".replace("  ", " "), f" {one.meaning} ")
        lines.append("|" + "|".join(cells) + "|\n")
    return "".join(lines)


def page() -> str:
    """The page with the table as it should be."""
    text = PAGE.read_text(encoding="utf-8")
    start = text.index(_HEAD + "| `step` |") + len(_HEAD)
    return text[:start] + table() + text[text.index(_LAST, start) :]


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, page()))
