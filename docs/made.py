"""What is made from the code: written into its page, or compared with it.

The `make_*.py` beside it make the texts.
"""

from __future__ import annotations

import sys
from pathlib import Path


def write_or_check(page: Path, text: str) -> int:
    """Write `text` to `page`; with --check write nothing. Returns an exit status: 1 where the page
    says something else.
    """
    if "--check" not in sys.argv[1:]:
        page.write_text(text, encoding="utf-8")
        return 0
    if page.is_file() and page.read_text(encoding="utf-8") == text:
        return 0
    print(f"{page}: out of date; run: python {sys.argv[0]}", file=sys.stderr)
    return 1
