"""Which versions of `transformers` load what we write, and whether they compute the same.

    python benchmarks/compatibility.py --run runs/quickstart

Exports both networks of the run, fine-tunes the discriminator for a moment (classification and
question answering), trains tokenizers of other kinds, and opens all folders with each version of
`VERSIONS`. The reference is the installed version: the check of an export compares that with our
own networks. An older version is installed by pip into `build/compatibility/VERSION`, without
torch: it uses the installed one.

Writes the table of docs/export.md; electra_dist/export/compatibility.py states what came of it.
"""

from __future__ import annotations

import argparse
import json
import os
import pydoc_data.topics
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from compatibility_probe import CASES, TOKENIZERS

ROOT = Path(__file__).resolve().parents[1]
PROBE = Path(__file__).with_name("compatibility_probe.py")
PAGE = ROOT / "docs/export.md"
#: From old to new; the installed one follows.
VERSIONS = (
    "4.24.0",
    "4.26.1",
    "4.30.2",
    "4.36.2",
    "4.41.2",
    "4.46.3",
    "4.51.3",
    "4.57.6",
    "5.0.0",
)
#: Logits may differ by this much, times the largest where that is above 1.
TOLERANCE = 1e-4
#: What stands around the table in the page.
BEGIN = "<!-- compatibility: written by benchmarks/compatibility.py -->"
END = "<!-- compatibility: end -->"

Results = Mapping[str, Any]


def make_folders(run: Path, folder: Path) -> None:
    """One folder a case, written by the commands."""
    for network in ("discriminator", "generator"):
        _command("export", str(run), "--network", network, "--out", str(folder / network))
    sentences = [f"{thing} is {word}" for thing in ("it", "this class") for word in "abcdefgh"]
    rows = [f"{text}\t{'even' if ord(text[-1]) % 2 else 'odd'}" for text in sentences]
    table = folder / "train.tsv"
    table.write_text("text\tlabel\n" + "\n".join(rows) + "\n", encoding="utf-8")
    questions = folder / "train.jsonl"
    context = "It was made by Anna in Oslo."
    answer = {"text": "Anna", "answer_start": context.index("Anna")}
    lines = [
        {"id": str(n), "question": "who?", "context": context, "answers": [answer]}
        for n in range(8)
    ]
    questions.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    for task, train in (("classification", table), ("question-answering", questions)):
        _command(
            *("finetune", str(folder / "discriminator"), "--task", task, "--epochs", "1"),
            *("--device", "cpu", "--train", str(train), "--out", str(folder / task)),
        )


def make_tokenizers(folder: Path) -> None:
    """One folder per kind, as an export carries it."""
    from data_tools.tokenizer import train_tokenizer
    from electra_dist.export.older import for_older_versions

    text = folder / "topics.txt"
    topics = [" ".join(topic.split()) for topic in pydoc_data.topics.topics.values()]
    text.write_text("\n\n".join(topics), encoding="utf-8")
    train_tokenizer([text], 2000, folder / "unigram", kind="unigram")
    train_tokenizer([text], 2000, folder / "white-space", keep_whitespace=True)
    train_tokenizer([text], 2000, folder / "words", kind="words")
    for name in TOKENIZERS:
        file = folder / name / "tokenizer.json"
        file.write_bytes(for_older_versions(file.read_bytes()))


def _command(*words: str) -> None:
    command = [sys.executable, "-m", "electra_dist.cli", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def install(version: str) -> Path:
    """The folder with this version and what it needs but torch; installed once."""
    folder = ROOT / "build/compatibility" / version
    if not folder.exists():
        part = folder.with_suffix(".part")
        words = ["--quiet", "--target", str(part), f"transformers=={version}"]
        if version.startswith("4."):
            words.append("numpy<2")  # names that NumPy 2 took away
        subprocess.run([sys.executable, "-m", "pip", "install", *words], check=True)
        part.rename(folder)
    return folder


def probe(folders: Path, version: str | None) -> Results:
    """What a version, or the installed one, makes of the folders."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if version is not None:
        environment["PYTHONPATH"] = str(install(version))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.npz"
        command = [sys.executable, str(PROBE), str(folders), str(out)]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if not out.exists():
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            return {f"{case}/error": last for case in (*CASES, *TOKENIZERS)}
        with np.load(out) as found:
            return dict(found)


def verdict(found: Results, expected: Results, case: str) -> str:
    """`same`, or the first thing that is not."""
    error = found.get(f"{case}/error")
    if error is not None:
        return f"fails: {str(error)[:60]}"
    names = [name for name in expected if name.startswith(f"{case}/")]
    for name in names:
        if name.endswith("/written"):
            continue
        one = expected[name]
        other = found.get(name)
        if other is None or one.shape != other.shape:
            return f"other {name.partition('/')[2]}"
        if one.dtype.kind == "f":
            difference = float(np.abs(one - other).max())
            if not difference <= TOLERANCE * max(1.0, float(np.abs(one).max())):
                return f"outputs differ by {difference:.1e}"
        elif (one != other).any():
            return f"other {name.partition('/')[2]}"
    return "same"


def written(found: Results, expected: Results) -> str:
    """Whether every tokenizer reads a special token that a text spells as the installed one does;
    "" where one does not load.
    """
    names = [f"{case}/written" for case in CASES]
    if any(name not in found for name in names):
        return ""
    if all(np.array_equal(found[name], expected[name]) for name in names):
        return "text"
    return "the token"


def table(rows: list[tuple[str, ...]]) -> str:
    """The table of the page."""
    header = ("transformers", *CASES, *TOKENIZERS, "`[MASK]` written in a text")
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def write_page(page: Path, text: str) -> None:
    """Put the table into the page, between its marks."""
    content = page.read_text(encoding="utf-8")
    marks = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    page.write_text(marks.sub(lambda _: f"{BEGIN}\n\n{text}\n\n{END}", content), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--versions", nargs="*", default=VERSIONS)
    parser.add_argument("--page", type=Path, default=PAGE, help="page with the table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folders = Path(folder)
        make_folders(arguments.run, folders)
        make_tokenizers(folders)
        expected = probe(folders, None)
        for case in (*CASES, *TOKENIZERS):
            if f"{case}/error" in expected:
                raise SystemExit(f"the installed version fails: {expected[f'{case}/error']}")
        rows = []
        for version in (*arguments.versions, None):
            found = probe(folders, version)
            name = str(found.get("version", version))
            if version not in (None, name):
                raise SystemExit(f"transformers {name} was loaded instead of {version}")
            verdicts = [verdict(found, expected, case) for case in (*CASES, *TOKENIZERS)]
            rows.append((name, *verdicts, written(found, expected)))
            print(*rows[-1], sep="  ", flush=True)
    write_page(arguments.page, table(rows))


if __name__ == "__main__":
    main()
