"""How well a discriminator finds words that do not belong, next to word frequencies and to the
likelihood that the generator gives each word.

    python benchmarks/suspects.py misspellings --export runs/quickstart/export \
        --corpus runs/quickstart-data/corpus --text wikitext2-test.txt --dictionary dictionary.txt
    python benchmarks/suspects.py misuse --export runs/python/export \
        --corpus python-source/train --modules python-source/held-out.jsonl

`misspellings` plants common misspellings in held-out sentences (the file `dictionary.txt` of the
package codespell has 64,000 of them, many from Wikipedia's list). `misuse` puts another variable of
the same function in the place of one, in held-out Python modules of `python_corpus.py`.

Each case has one planted word among its words (of misuse: among the uses of local variables). Every
method gives each word a score; the figures are over all cases:

    AUC        that a planted word scores higher than another one of any case
    P@R50      the precision at the threshold that finds half of the planted words
    top-1      cases in which the planted word scores highest; ties count their share
    fixed      cases in which the generator's suggestions for the planted word, `--count` of them,
               have the word that stood there

The frequency of a word is counted over the corpus that the networks were trained on, case folded
for misspellings.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_auc_score
from suspect_cases import Case, misspellings, misuse

from electra_dist.measure.bench import device_name
from electra_dist.suspects.detector import Detector
from electra_dist.suspects.suggester import Suggester

Scores = NDArray[np.float64]
_WORD = re.compile(r"\w+")


def main() -> None:
    options = parser().parse_args()
    if options.kind == "misspellings":
        cases = misspellings(options.text, options.dictionary, options.cases, options.seed)
    else:
        cases = misuse(options.modules, options.cases, options.seed)

    device = torch.device("cpu")
    detector = Detector.open(options.export / "discriminator", device)
    suggester = Suggester.open(options.export / "generator", device)
    likelihoods = [suggester.log_likelihood(case.text, case.candidates) for case in cases]
    whole = [
        place for place, found in enumerate(likelihoods) if all(one is not None for one in found)
    ]
    left_out = len(cases) - len(whole)
    cases = [cases[place] for place in whole]

    fold = options.kind == "misspellings"
    methods = by_discriminator(detector, cases)
    methods["generator's likelihood"] = [-np.array(likelihoods[place], float) for place in whole]
    methods["unigram frequency"] = by_frequency(options.corpus, cases, fold)
    chance = float(np.mean([1 / len(case.candidates) for case in cases]))
    fixed = fixed_share(suggester, cases, options.count)

    print(f"{device_name(device)}; seed {options.seed}")
    print(
        f"{len(cases):,} cases, {sum(len(case.candidates) for case in cases):,} words; {left_out}"
        " left out, where a word is not whole to the tokenizer"
    )
    print(f"{'':32}{'AUC':>8}{'P@R50':>8}{'top-1':>8}")
    rows = {}
    for name, scores in methods.items():
        rows[name] = figures(cases, scores)
        print(f"{name:32}" + "".join(f"{value:8.3f}" for value in rows[name].values()))
    positives = len(cases) / sum(len(case.candidates) for case in cases)
    print(f"{'chance':32}{0.5:8.3f}{positives:8.3f}{chance:8.3f}")
    print(f"fixed: {fixed:.3f} within {options.count} suggestions")
    if options.json:
        content = {"cases": len(cases), "rows": rows, "chance": chance, "fixed": fixed}
        options.json.write_text(json.dumps(content, indent=2) + "\n")


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = found.add_subparsers(dest="kind", required=True)
    words = kinds.add_parser("misspellings")
    words.add_argument("--text", type=Path, required=True, help="held-out text, WikiText's form")
    words.add_argument("--dictionary", type=Path, required=True, help="lines `wrong->right`")
    code = kinds.add_parser("misuse")
    code.add_argument("--modules", type=Path, required=True, help="held-out.jsonl")
    for kind in (words, code):
        kind.add_argument("--export", type=Path, required=True, help="holds both networks")
        kind.add_argument("--corpus", type=Path, required=True, help="folder with their .jsonl")
        kind.add_argument("--cases", type=int, default=500)
        kind.add_argument("--count", type=int, default=5)
        kind.add_argument("--seed", type=int, default=1)
        kind.add_argument("--json", type=Path)
    return found


def by_discriminator(detector: Detector, cases: Sequence[Case]) -> dict[str, list[Scores]]:
    """Words scored by their tokens' probabilities of being replaced, put together in three ways."""
    ways: dict[str, Callable[[Scores], float]] = {
        "discriminator, max": lambda replaced: float(replaced.max()),
        "discriminator, 1 - product": lambda replaced: float(1 - np.prod(1 - replaced)),
        "discriminator, mean": lambda replaced: float(replaced.mean()),
    }
    judged = detector.judge([case.text for case in cases])
    found: dict[str, list[Scores]] = {name: [] for name in ways}
    for case, one in zip(cases, judged, strict=True):
        offsets = one.tokens.offsets
        tokens = [
            [place for place, (low, high) in enumerate(offsets) if low < end and high > start]
            for start, end in case.candidates
        ]
        for name, way in ways.items():
            found[name].append(np.array([way(one.replaced[own]) for own in tokens]))
    return found


def by_frequency(corpus: Path, cases: Sequence[Case], fold: bool) -> list[Scores]:
    """Words scored by how rare they are in the corpus."""
    counts: Counter[str] = Counter()
    for path in sorted(corpus.glob("*.jsonl")):
        with path.open(encoding="utf-8") as file:
            for line in file:
                text = json.loads(line)["text"]
                counts.update(_WORD.findall(text.lower() if fold else text))

    def rarity(word: str) -> float:
        return -float(counts[word.lower() if fold else word])

    return [
        np.array([rarity(case.text[start:end]) for start, end in case.candidates]) for case in cases
    ]


def figures(cases: Sequence[Case], scores: Sequence[Scores]) -> dict[str, float]:
    """AUC, precision at half of the recall, and how often the planted word is first."""
    labels = np.concatenate(
        [np.arange(len(case.candidates)) == case.planted for case in cases]
    ).astype(int)
    together = np.concatenate(list(scores))
    precision, recall, _ = precision_recall_curve(labels, together)
    first = [top_share(one, case.planted) for case, one in zip(cases, scores, strict=True)]
    return {
        "auc": float(roc_auc_score(labels, together)),
        "precision_at_half": float(precision[recall >= 0.5].max()),
        "top_1": float(np.mean(first)),
    }


def top_share(scores: Scores, planted: int) -> float:
    """1 where the planted word is alone at the top; its share where others stand there too."""
    highest = scores == scores.max()
    return float(highest[planted] / highest.sum())


def fixed_share(suggester: Suggester, cases: Sequence[Case], count: int) -> float:
    """Cases in which the suggestions for the planted word have the original."""
    found = 0
    for case in cases:
        (suggestions,) = suggester.suggest(case.text, [case.candidates[case.planted]], count)
        found += case.original in {one.text for one in suggestions}
    return found / len(cases)


if __name__ == "__main__":
    main()
