"""What cleaning does to a classification, and how well several labels per text are learnt.

    python benchmarks/finetune_texts.py --model runs/quickstart/export/discriminator
    --train train.tsv --dev dev.tsv --neutral wikipedia.txt --json texts.json

The tables hold sentences that are positive (1) or negative (0), as those of benchmarks/finetune.py.

Cleaning: the same sentences as they are, without stop words, and wrapped in HTML with and without
`html`. Every median is over the same seeds. `words` is the same for logistic
regression on TF-IDF of words and word pairs, which takes seconds.

Several labels: a text is two pieces, each a positive sentence, a negative one, or a line of the
neutral file, with the same chance. Its labels are `praise` where a piece is positive and `blame`
where one is negative; none where both are neutral. Pieces held out are from the table held out and
from the second half of the neutral lines.
"""

from __future__ import annotations

import argparse
import html
import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from electra_dist.finetune.cleaning import cleaned
from electra_dist.finetune.labelled import Columns, Example, read_examples
from electra_dist.finetune.run import FinetuneReport, Settings, finetune

LABELS = {"1": "praise", "0": "blame"}
#: Kinds of text, and what is cleaned.
CASES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("plain", ()),
    ("plain", ("stop-words",)),
    ("html", ()),
    ("html", ("html",)),
)
#: Of a neutral piece, characters.
_SHORTEST, _LONGEST = 40, 200


def wrapped(text: str, number: int) -> str:
    """The text as a piece of a page."""
    first, _, rest = html.escape(text).partition(" ")
    return (
        f'<div class="review" id="r{number}"><p style="margin: 0">'
        f"<strong>{first}</strong> {rest}</p></div>"
    )


def write(path: Path, rows: Sequence[tuple[str, Any]]) -> Path:
    """JSON lines of texts and labels."""
    lines = [json.dumps({"text": text, "label": label}) + "\n" for text, label in rows]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def several_labels(
    examples: Sequence[Example], neutral: Sequence[str], count: int, seed: int
) -> list[tuple[str, list[str]]]:
    """Texts of two pieces with the labels of the pieces."""
    draw = random.Random(seed)
    pools = {label: [e.text for e in examples if e.label == label] for label in LABELS}
    pools["neutral"] = list(neutral)
    rows = []
    for _ in range(count):
        kinds = [draw.choice(tuple(pools)) for _ in range(2)]
        text = " ".join(draw.choice(pools[kind]) for kind in kinds)
        rows.append((text, [LABELS[kind] for kind in sorted(set(kinds)) if kind in LABELS]))
    return rows


def neutral_lines(path: Path) -> list[str]:
    """First sentences of a plain text's paragraphs, headings left out."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        sentence = line.strip().split(" . ")[0]
        if _SHORTEST <= len(sentence) <= _LONGEST and not sentence.startswith("="):
            found.append(sentence)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="an exported discriminator")
    parser.add_argument("--train", type=Path, required=True, help="columns text and label")
    parser.add_argument("--dev", type=Path, required=True, help="the same, held out")
    parser.add_argument("--neutral", type=Path, required=True, help="plain text")
    parser.add_argument("--examples", type=int, default=1500, help="to train on")
    parser.add_argument("--held-out", type=int, default=872)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--only", choices=("cleaning", "labels", "words"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    train = read_examples(options.train, Columns(), "refuse")[: options.examples]
    dev = read_examples(options.dev, Columns(), "refuse")[: options.held_out]
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        if options.only in (None, "words"):
            found |= word_counts(train, dev)
        if options.only in (None, "cleaning"):
            found |= cleaning(options, train, dev, Path(scratch))
        if options.only in (None, "labels"):
            report = labels(options, train, dev, Path(scratch))
            found["several labels"] = row(report)
    for what, scores in found.items():
        print(f"{what:32}" + "".join(f"  {name} {value:.3f}" for name, value in scores.items()))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def texts_of(examples: Sequence[Example], kind: str) -> list[str]:
    """As they are, or in HTML."""
    texts = [example.text for example in examples]
    if kind == "plain":
        return texts
    return [wrapped(text, number) for number, text in enumerate(texts)]


def word_counts(train: Sequence[Example], dev: Sequence[Example]) -> dict[str, dict[str, float]]:
    """Accuracy of logistic regression for each kind of text and cleaning."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    found = {}
    for kind, steps in CASES:
        known, held_out = (cleaned(texts_of(part, kind), steps) for part in (train, dev))
        words = TfidfVectorizer(ngram_range=(1, 2))
        pipeline = make_pipeline(words, LogisticRegression(max_iter=1000))
        pipeline.fit(known, [example.label for example in train])
        accuracy = float(pipeline.score(held_out, [example.label for example in dev]))
        found[f"words, {kind}, clean {' '.join(steps) or 'nothing'}"] = {"accuracy": accuracy}
    return found


def cleaning(
    options: argparse.Namespace, train: Sequence[Example], dev: Sequence[Example], scratch: Path
) -> dict[str, dict[str, float]]:
    """Accuracy for each kind of text and cleaning."""
    found = {}
    for kind, steps in CASES:
        files = []
        for name, examples in (("train", train), ("dev", dev)):
            texts = texts_of(examples, kind)
            rows = [(text, e.label) for text, e in zip(texts, examples, strict=True)]
            files.append(write(scratch / f"{kind}-{name}.jsonl", rows))
        what = f"{kind}, clean {' '.join(steps) or 'nothing'}"
        found[what] = row(trained(options, files, scratch / what, clean=steps))
        print(what, found[what], flush=True)
    return found


def labels(
    options: argparse.Namespace, train: Sequence[Example], dev: Sequence[Example], scratch: Path
) -> FinetuneReport:
    """Several labels per text."""
    neutral = neutral_lines(options.neutral)
    half = len(neutral) // 2
    files = [
        write(
            scratch / "several-train.jsonl",
            several_labels(train, neutral[:half], len(train), 1),
        ),
        write(scratch / "several-dev.jsonl", several_labels(dev, neutral[half:], len(dev), 2)),
    ]
    return trained(options, files, scratch / "several", task="multi-label")


def trained(
    options: argparse.Namespace, files: Sequence[Path], out: Path, **settings: Any
) -> FinetuneReport:
    """With the recipe of the options."""
    train, dev = files
    recipe = {"lr": options.lr, "epochs": options.epochs, "max_length": 64}
    seeds = tuple(range(1, options.seeds + 1))
    return finetune(
        Settings(options.model, train, out, dev, recipe=recipe, seeds=seeds, **settings)
    )


def row(report: FinetuneReport) -> dict[str, float]:
    """Median, lowest and highest of the main score, and the median of the others."""
    main = [scores[report.main_score] for scores in report.seeds.values()]
    others = {name: value for name, value in report.median.items() if name != report.main_score}
    return {
        report.main_score: report.median[report.main_score],
        "lowest": min(main),
        "highest": max(main),
        "without a model": report.simple[report.main_score],
        **others,
    }


if __name__ == "__main__":
    main()
