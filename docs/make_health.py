"""Write the table of rules in docs/health.md from `electra_dist.health`.

python docs/make_health.py            writes
python docs/make_health.py --check    exit status 1 where the page says something else
"""

from __future__ import annotations

import sys
from pathlib import Path

from made import write_or_check

from electra_dist.health import RULES

PAGE = Path(__file__).with_name("health.md")
_BEGIN = "<!-- rules: written by docs/make_health.py -->\n"
_END = "\n<!-- rules: end -->"
_HEAD = "| rule | begins | ends | what to do | source |\n|---|---|---|---|---|\n"


def table() -> str:
    """One line per rule."""
    lines = []
    for rule in RULES:
        looked_at = ", ".join(f"`{name}`" for name in rule.needs)
        cells = (
            f"`{rule.name}` ({rule.severity})",
            f"{rule.begins} ({looked_at})",
            rule.ends,
            rule.advice,
            rule.source,
        )
        lines.append(f"| {' | '.join(cells)} |\n")
    return _HEAD + "".join(lines)


def page() -> str:
    """The page with the table as it should be."""
    text = PAGE.read_text(encoding="utf-8")
    start = text.index(_BEGIN) + len(_BEGIN)
    return text[:start] + "\n" + table() + text[text.index(_END) :]


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, page()))
