"""Readers who do not exist, and what they click, in the format of MIND: made from real titles."""

from __future__ import annotations

import random
from pathlib import Path

#: Titles of a history, and of an impression, at most.
MOST_READ = 12
SHOWN = 6


def write_behaviors(folder: Path, impressions: int, seed: int, labelled: bool = True) -> Path:
    """behaviors.tsv beside the news.tsv of `folder`: each reader likes one subcategory.

    Nine histories of ten hold what the reader likes, the others are empty. One title of each
    impression, or two, are of that kind and are clicked.
    """
    draw = random.Random(seed)
    by_kind: dict[str, list[str]] = {}
    for line in (folder / "news.tsv").read_text(encoding="utf-8").splitlines():
        (news, _, kind, *_) = line.split("\t")
        by_kind.setdefault(kind, []).append(news)
    lines = []
    for number in range(1, impressions + 1):
        liked = draw.choice(sorted(by_kind))
        others = [news for kind, group in by_kind.items() if kind != liked for news in group]
        history = draw.sample(by_kind[liked], draw.randint(1, MOST_READ))
        if draw.random() < 0.1:
            history = []
        unread = [news for news in by_kind[liked] if news not in history]
        clicked = draw.sample(unread, draw.randint(1, 2))
        shown = [(news, 1) for news in clicked]
        shown += [(news, 0) for news in draw.sample(others, SHOWN - len(clicked))]
        draw.shuffle(shown)
        items = [f"{news}-{label}" if labelled else news for news, label in shown]
        time = f"11/{draw.randint(9, 14)}/2019 {draw.randint(1, 12)}:{draw.randint(10, 59)}:00 AM"
        fields = (str(number), f"U{number}", time, " ".join(history), " ".join(items))
        lines.append("\t".join(fields) + "\n")
    path = folder / "behaviors.tsv"
    path.write_text("".join(lines), encoding="utf-8")
    return path
