"""A task that a network of two layers learns in seconds: is a sentence kind or not?"""

from __future__ import annotations

import json
import random
from pathlib import Path

GOOD = ("delightful", "moving", "wise", "bright", "a joy")
BAD = ("dull", "clumsy", "empty", "tiresome", "a mess")
SUBJECTS = (
    "the film",
    "this class",
    "the second chapter",
    "his argument",
    "the module",
    "her ending",
)


def sentences(count: int, seed: int) -> list[tuple[str, str]]:
    """(sentence, "pos" or "neg"): the label hangs on one word."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        good = draw.random() < 0.5
        words = (
            f"{draw.choice(SUBJECTS)} is {draw.choice(GOOD if good else BAD)} and"
            f" {draw.choice(SUBJECTS)} is long"
        )
        found.append((words, "pos" if good else "neg"))
    return found


def write_table(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text(
        "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows), encoding="utf-8"
    )
    return path


NAMES = ("Anna", "Bruno", "Carla", "Dmitri")
PLACES = ("Lisbon", "Oslo", "Nairobi", "Lima")


def random_model(folder: Path, auto_class: str, tokenizer: Path, labels: int = 2) -> Path:
    """A folder as `electra-dist export` writes it:
    two layers of 64, random weights, a trained tokenizer.
    """
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.ElectraConfig(
        vocab_size=512,
        embedding_size=32,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=96,
        num_labels=labels,
    )
    getattr(transformers, auto_class)(config).save_pretrained(folder)
    for file in tokenizer.iterdir():
        if file.name.startswith("tokenizer"):
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def questions(path: Path, count: int, seed: int, with_none: bool = False) -> Path:
    """JSON lines that ask who or where; with `with_none` also when, which no context says."""
    draw = random.Random(seed)
    lines = []
    for number in range(count):
        name, place = draw.choice(NAMES), draw.choice(PLACES)
        context = (
            f"{draw.choice(SUBJECTS)} is long. It was made by {name} and shown in {place}"
            " for a week."
        )
        asked = draw.choice(("who", "where", "when") if with_none else ("who", "where"))
        answer = {"who": name, "where": place}.get(asked)
        answers = [{"text": answer, "answer_start": context.index(answer)}] if answer else []
        line = {
            "id": str(number),
            "question": f"{asked} was it?",
            "context": context,
            "answers": answers,
        }
        lines.append(json.dumps(line))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def belonging(path: Path, count: int, seed: int, kind: str = "pairs") -> Path:
    """JSON lines of texts that belong together where subject and word do: `pairs`, `triples` or
    `scored`.
    """
    draw = random.Random(seed)
    lines = []
    for number in range(count):
        subject = draw.choice(SUBJECTS)
        word = draw.randrange(len(GOOD))
        other = (word + draw.randrange(1, len(GOOD))) % len(GOOD)
        right = f"{subject} is {BAD[word]}"
        wrong = f"{subject} is {BAD[other]}"
        line: dict[str, object] = {
            "text": f"{draw.choice(NAMES)} says: {subject} is {GOOD[word]}",
            "pair": right,
        }
        if kind == "triples":
            line["negative"] = wrong
        if kind == "scored":
            line["pair"] = (wrong, right)[number % 2]
            line["label"] = number % 2
        lines.append(json.dumps(line))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
