"""A task that a network of two layers learns in seconds: is a sentence kind or not?"""

from __future__ import annotations

import random
from pathlib import Path

GOOD = ("delightful", "moving", "wise", "bright", "a joy")
BAD = ("dull", "clumsy", "empty", "tiresome", "a mess")
SUBJECTS = ("the film", "this class", "the second chapter", "his argument", "the module", "her ending")


def sentences(count: int, seed: int) -> list[tuple[str, str]]:
    """(sentence, "pos" or "neg"): the label hangs on one word."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        good = draw.random() < 0.5
        words = f"{draw.choice(SUBJECTS)} is {draw.choice(GOOD if good else BAD)} and {draw.choice(SUBJECTS)} is long"
        found.append((words, "pos" if good else "neg"))
    return found


def write_table(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows), encoding="utf-8")
    return path
