"""Names and numbers of metrics as people read them."""

from __future__ import annotations

import math
import re

from electra_dist.runs.metrics import Metric

_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_WORDS = {
    "auc": "AUC",
    "brier": "Brier score",
    "bytes": "memory",
    "f1": "F1",
    "grad": "gradient",
    "lr": "learning rate",
    "mfu": "model FLOPs utilisation",
    "per": "per",
    "s": "second",
    "top5": "top-5 accuracy",
}
UNKNOWN = "–"


def title_of(metric: Metric) -> str:
    """`loss/generator` as `Generator loss`, `optim/generator_grad_norm` as `Generator gradient
    norm`.
    """
    section, _, rest = metric.name.partition("/")
    words = [_WORDS.get(word, word) for word in rest.split("_")]
    if section == "loss":
        words.append("loss")
    elif section in ("generator", "discriminator"):
        words.insert(0, section)
    title = " ".join(words)
    return title[:1].upper() + title[1:]


def meaning_of(metric: Metric) -> str:
    """What a metric is, as sentences: its meaning, which may go on from its unit, and the range of
    a healthy run.
    """
    meaning = plain(metric.meaning)
    if meaning.startswith(("of ", "that ")) and metric.unit:
        meaning = f"{metric.unit} {meaning}"
    sentences = meaning[:1].upper() + meaning[1:] + "."
    if metric.healthy:
        sentences += f" Healthy: {plain(metric.healthy)}."
    return sentences


def plain(markdown: str) -> str:
    """One line of Markdown without its marks."""
    return _LINK.sub(r"\1", markdown).replace("`", "").replace(", see below", "")


def number(value: float | None, spec: str = ".4g") -> str:
    """`value` in the digits of a metric; a dash where it is not known."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if spec.endswith("d"):
        return format(round(value), spec)
    return format(value, spec)
