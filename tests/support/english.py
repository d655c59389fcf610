"""Real English in quantity, from what every Python installation has.

`join_packages` makes long documents of the built-in corpus, `squad_articles` makes questions with
their answers on any texts.
"""

from __future__ import annotations

import gzip
import json
import random
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

#: Words of an answer, at most.
ANSWER_WORDS = 6
QUESTIONS_PER_PARAGRAPH = 5
PARAGRAPH_CHARACTERS = 700


def read_texts(path: Path) -> list[str]:
    """The texts of a file of JSON lines."""
    return [document["text"] for document in read_lines(path)]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; a text may hold any other character that ends a line."""
    with path.open(encoding="utf-8", newline="\n") as lines:
        return [json.loads(line) for line in lines]


def join_packages(corpus: Path, out: Path) -> Path:
    """Write `out`, JSON lines with the docstrings of each package of `corpus` as one document.

    `corpus` is what `electra-dist data corpus pydoc` has written: documents of 600 to 900
    characters on average. Those of `out` are ten to thirty times as long. A name in `.gz` is
    compressed.
    """
    packages: defaultdict[str, list[str]] = defaultdict(list)
    for document in read_lines(corpus):
        module = document["id"].split(".")[0]
        packages[module.rpartition("/")[0] or module].append(document["text"])

    lines = [json.dumps({"text": "\n\n".join(texts)}) + "\n" for texts in packages.values()]
    content = "".join(lines).encode()
    if out.suffix == ".gz":
        content = gzip.compress(content)
    out.write_bytes(content)
    return out


def squad_articles(texts: list[str], paragraphs: int, seed: int) -> list[dict[str, Any]]:
    """Articles of a SQuAD file, with `paragraphs` of 700 characters at least, drawn from `texts`.

    A question asks what follows on a few words; its answer is one to six words of the paragraph,
    without the punctuation around them, as people mark answers. One answer of a hundred lacks its
    last letter, as some in every data set do.
    """
    draw = random.Random(seed)
    found = [paragraph for text in texts for paragraph in _paragraphs(text)]
    draw.shuffle(found)
    assert len(found) >= paragraphs, f"only {len(found)} paragraphs in these texts"

    articles = []
    for number, context in enumerate(found[:paragraphs]):
        asked = [_question(context, draw) for _ in range(QUESTIONS_PER_PARAGRAPH)]
        for count, entry in enumerate(asked):
            entry["id"] = f"{number}.{count}"
        if number % (100 // QUESTIONS_PER_PARAGRAPH) == 0:
            (answer,) = asked[0]["answers"]
            answer["text"] = answer["text"][:-1]
        paragraph = {"context": context, "qas": asked}
        articles.append({"title": f"Paragraph {number}", "paragraphs": [paragraph]})
    return articles


def _paragraphs(text: str) -> list[str]:
    """Pieces of at least `PARAGRAPH_CHARACTERS`, cut at blank lines; a shorter rest is left out."""
    pieces = []
    begun = ""
    for block in re.split(r"\n\s*\n", text.strip()):
        begun += "\n\n" * bool(begun) + block.rstrip()
        if len(begun) >= PARAGRAPH_CHARACTERS:
            pieces.append(begun)
            begun = ""
    return pieces


def _question(context: str, draw: random.Random) -> dict[str, Any]:
    words = list(re.finditer(r"\S+", context))
    while True:
        first = draw.randrange(3, len(words))
        last = min(first + draw.randrange(ANSWER_WORDS), len(words) - 1)
        marked = context[words[first].start() : words[last].end()]
        answer = re.sub(r"^[\W_]+|[\W_]+$", "", marked)
        if re.search(r"[A-Za-z]{4}", answer):  # not a number or an article alone
            break
    start = words[first].start() + marked.index(answer)
    before = " ".join(word[0] for word in words[first - 3 : first])
    return {
        "question": f"What follows on {before}?",
        "answers": [{"text": answer, "answer_start": start}],
    }
