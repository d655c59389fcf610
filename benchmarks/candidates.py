"""Ranking and multiple choice made of questions with their paragraphs, against orders without a
model.

    python benchmarks/candidates.py --model runs/quickstart/export/discriminator --squad xquad.json

The file is in the form of SQuAD 1.1, several paragraphs per article. Ranking: the paragraphs of the
article in a drawn order, the one that a question was asked of is relevant. Multiple choice: four of
them. A quarter of the articles is held out, so that no paragraph is seen before. Candidates of
other articles would be too easy.

The peers see the same held-out lists. `word overlap` counts the words of the question that a
paragraph has. `TF-IDF` is the cosine of scikit-learn's vectors, fitted on the paragraphs of the
training files. `chance` is the mean over all orders of the candidates.
The figures in docs/tasks are of XQuAD's English part (https://github.com/google-deepmind/xquad).
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from electra_dist.finetune.predictor import Scores
from electra_dist.finetune.registry import TASKS
from electra_dist.finetune.run import Settings, finetune
from electra_dist.finetune.tasks.candidates.overlap import word_overlap
from electra_dist.finetune.tasks.choices.learner import choice_scores
from electra_dist.finetune.tasks.choices.reading import read_choices
from electra_dist.finetune.tasks.ranking.learner import query_scores
from electra_dist.finetune.tasks.ranking.queries import read_queries

Scorer = Callable[[str, Sequence[str]], Any]
TASKS_HERE = ("ranking", "multiple-choice")
HELD_OUT = 0.25
CHOICES = 4


def write_lists(squad: Path, folder: Path, seed: int) -> None:
    """train and dev files of both tasks."""
    draw = random.Random(seed)
    articles = json.loads(squad.read_text(encoding="utf-8"))["data"]
    articles = [one for one in articles if len(one["paragraphs"]) >= CHOICES]
    draw.shuffle(articles)
    held_out = round(HELD_OUT * len(articles))
    for part, chosen in (("dev", articles[:held_out]), ("train", articles[held_out:])):
        lists = [one for article in chosen for one in article_lists(article, draw)]
        for task in TASKS_HERE:
            lines = [json.dumps(one[task]) + "\n" for one in lists]
            (folder / f"{part}-{task}.jsonl").write_text("".join(lines), encoding="utf-8")


def article_lists(article: dict[str, Any], draw: random.Random) -> Iterator[dict[str, Any]]:
    """For each question, an example of each task."""
    paragraphs = [one["context"] for one in article["paragraphs"]]
    for number, paragraph in enumerate(article["paragraphs"]):
        for asked in paragraph["qas"]:
            others = [index for index in range(len(paragraphs)) if index != number]
            draw.shuffle(others)
            every = [number, *others]
            few = every[:CHOICES]
            draw.shuffle(every)
            draw.shuffle(few)
            yield {
                "ranking": {
                    "query": asked["question"],
                    "candidates": [paragraphs[index] for index in every],
                    "relevant": [int(index == number) for index in every],
                },
                "multiple-choice": {
                    "text": asked["question"],
                    "choices": [paragraphs[index] for index in few],
                    "label": few.index(number),
                },
            }


def tf_idf(training: Path) -> Scorer:
    """The cosine of a text and its candidates."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    rows = [json.loads(line) for line in training.read_text(encoding="utf-8").splitlines()]
    texts = {text for row in rows for text in row["candidates"]}
    vectorizer = TfidfVectorizer(sublinear_tf=True).fit(sorted(texts))

    def cosines(text: str, candidates: Sequence[str]) -> Any:
        found = vectorizer.transform([text, *candidates])
        return (found[1:] @ found[0].T).toarray().ravel()

    return cosines


def peer_scores(task: str, file: Path, score: Scorer) -> Scores:
    """The scores of a peer on a held-out file."""
    if task == "ranking":
        queries = read_queries(file, TASKS[task].columns)
        return query_scores(queries, [(score(one.text, one.candidates),) for one in queries])
    choices = read_choices(file, TASKS[task].columns)
    return choice_scores(choices, [(score(one.text, one.candidates),) for one in choices])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="an exported discriminator")
    parser.add_argument("--squad", type=Path, required=True, help="questions, as SQuAD 1.1")
    parser.add_argument("--tasks", nargs="+", choices=TASKS_HERE, default=TASKS_HERE)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"))
    options = parser.parse_args()
    rows: list[tuple[str, str, Scores]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_lists(options.squad, folder, seed=0)
        peers: dict[str, Scorer] = {
            "word overlap": word_overlap,
            "TF-IDF": tf_idf(folder / "train-ranking.jsonl"),
        }
        for task in options.tasks:
            held_out = folder / f"dev-{task}.jsonl"
            settings = Settings(
                model=options.model,
                train=folder / f"train-{task}.jsonl",
                dev=held_out,
                out=folder / task,
                task=task,
                recipe={
                    "lr": options.lr,
                    "epochs": options.epochs,
                    "batch": options.batch,
                    "max_length": options.max_length,
                },
                seeds=tuple(range(1, options.seeds + 1)),
                device=options.device,
            )
            report = finetune(settings)
            rows.append((task, f"fine-tuned, {report.seconds:.0f} s", report.median))
            rows += [(task, name, peer_scores(task, held_out, one)) for name, one in peers.items()]
            rows.append((task, "chance", chance(task, held_out)))
    for task, what, scores in rows:
        print(f"{task:18}{what:24}" + "  ".join(f"{n} {v:.3f}" for n, v in scores.items()))


def chance(task: str, file: Path) -> Scores:
    """The mean of the scores over all orders, or choices."""
    if task == "multiple-choice":
        return {"accuracy": 1 / CHOICES}
    return peer_scores(task, file, lambda text, candidates: np.zeros(len(candidates)))


if __name__ == "__main__":
    main()
