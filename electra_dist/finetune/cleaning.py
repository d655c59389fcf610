"""What can be done to a text before it is encoded, where the user asks for it.

Comes in: texts and the names of steps. Goes out: the texts, cleaned. The names are kept with the
fine-tuned model, so that a prediction treats its texts as the training did.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Callable, Sequence

from electra_dist.console import warn
from electra_dist.errors import UserError

#: A word with its apostrophes: `don't` is one, and no stop word.
_WORD = re.compile(r"\w+(?:['’]\w+)*")


def _without_html(text: str) -> str:
    """What a reader of the page sees, on one line: no tags, comments and scripts, no entities."""
    from resiliparse.extract.html2text import extract_plain_text

    page = text.encode("utf-8", "replace").decode("utf-8")  # JSON can hold lone surrogates
    return str(extract_plain_text(page, preserve_formatting=False))


def _without_stop_words(text: str) -> str:
    """Without scikit-learn's English stop words; the other words and the punctuation stay."""
    stop_words = _stop_words()

    def kept(word: re.Match[str]) -> str:
        if word[0].lower() in stop_words:
            return ""
        return word[0]

    return " ".join(_WORD.sub(kept, text).split())


@functools.cache
def _stop_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    words: frozenset[str] = ENGLISH_STOP_WORDS
    return words


#: The steps by name, in the order in which they are done.
STEPS: dict[str, Callable[[str], str]] = {
    "html": _without_html,
    "lower": str.lower,
    "stop-words": _without_stop_words,
}


def check_steps(names: Sequence[str], place: str) -> None:
    """Raise `UserError`, which begins with `place`, for a step that is unknown or cannot be done
    here.
    """
    for name in names:
        if name not in STEPS:
            raise UserError(
                f"{place} {name!r}: not known; expected {', '.join(STEPS)}, or several of them"
            )
    if "html" in names and importlib.util.find_spec("resiliparse") is None:
        raise UserError(f"{place} html needs resiliparse: pip install 'electra-dist[clean]'")


def cleaned(texts: Sequence[str], names: Sequence[str]) -> list[str]:
    """Each text after the steps that are named, whatever their order there."""
    found = list(texts)
    for name, step in STEPS.items():
        if name in names:
            found = [step(text) for text in found]
    emptied = sum(
        not after and bool(before.strip()) for before, after in zip(texts, found, strict=True)
    )
    if emptied:
        warn(f"{emptied:,} of {len(found):,} texts have no words left after {', '.join(names)}")
    return found
