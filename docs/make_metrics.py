"""Write the table of metrics in docs/train.md from `electra_dist.runs.metrics`.

python docs/make_metrics.py            writes
python docs/make_metrics.py --check    exit status 1 where the page says something else
"""

from __future__ import annotations

import sys
from pathlib import Path

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


def main() -> int:
    """Write or check; returns an exit status."""
    text = page()
    if "--check" in sys.argv[1:]:
        if text == PAGE.read_text(encoding="utf-8"):
            return 0
        print(f"{PAGE}: its table of metrics is out of date; run {sys.argv[0]}", file=sys.stderr)
        return 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
