"""Write the table of filters in docs/cleaning.md from `data_tools.filters.catalog`.

python docs/make_filters.py            writes
python docs/make_filters.py --check    exit status 1 where the page says something else
"""

from __future__ import annotations

import sys
from pathlib import Path

from made import write_or_check

from data_tools.filters.catalog import FILTERS

PAGE = Path(__file__).with_name("cleaning.md")
_HEAD = "| filter | drops | parameter | default |\n|---|---|---|---|\n"
_AFTER = "\nThe defaults come from papers"


def table() -> str:
    """One line per parameter; the first of a filter has its name."""
    lines = []
    for kind in FILTERS.values():
        name = f"`{kind.name}`"
        drops = kind.drops
        for one in kind.parameters():
            default = str(one.default).lower()
            lines.append(f"| {name} | {drops} | `{one.name}`: {one.meaning} | {default} |\n")
            name = ""
            drops = ""
    return "".join(lines)


def page() -> str:
    """The page with the table as it should be."""
    text = PAGE.read_text(encoding="utf-8")
    start = text.index(_HEAD) + len(_HEAD)
    return text[:start] + table() + text[text.index(_AFTER, start) :]


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, page()))
