"""Turns HTML pages into their text, and drops pages without any.

Documents that are no pages go through as they are. The text is that of Resiliparse: DCLM found it
as good for training as that of trafilatura, at an eighth of the time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from data_tools.filters.document import Document
from data_tools.filters.kinds import TextFilter, parameter

#: How a page begins, after comments and an XML declaration.
_PAGE = re.compile(
    r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*"
    r"<(?:!doctype\s+html|html|head|body|title|meta|div|p|article|section|main|table|h[1-6])\b",
    re.IGNORECASE | re.DOTALL,
)
#: Where the beginning of a page is looked for.
_HEAD = 4096


@dataclass(frozen=True)
class Html(TextFilter):
    """Pages to text: the main content alone, or everything that is shown."""

    name: ClassVar[str] = "html"
    drops: ClassVar[str] = "pages without text; turns the others into their text"
    source: ClassVar[str] = "DCLM (Li et al. 2024, arXiv 2406.11794), section 4.2"
    needs: ClassVar[tuple[str, ...]] = ("resiliparse",)

    main_content: bool = parameter(True, "leave menus, headers and footers out")
    everything: bool = parameter(
        False, "take every document as HTML; else those that begin as a page does"
    )

    def rewrite(self, document: Document) -> Document:
        if not self._is_page(document.text):
            return document
        from resiliparse.extract.html2text import extract_plain_text

        # JSON can hold lone surrogates, which no page can
        page = document.text.encode("utf-8", "replace").decode("utf-8")
        return Document(extract_plain_text(page, main_content=self.main_content).strip())

    def why_not(self, document: Document) -> str | None:
        if not document.text:
            return "empty"
        return None

    def _is_page(self, text: str) -> bool:
        return self.everything or _PAGE.match(text[:_HEAD]) is not None
