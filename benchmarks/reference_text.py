"""The texts of the reference curves, the same to the byte on every machine.

    python benchmarks/reference_text.py django
    python benchmarks/reference_text.py wikipedia --out runs/reference-data

    django     documentation of one release of Django, 6 MB of technical English: pip downloads the
               source distribution and checks its SHA-256 (licence BSD, three clauses)
    wikipedia  articles in simple English at one revision of a dataset of the Hugging Face hub, some
               200 MB (CC BY-SA 3.0); needs electra-dist[hub]
    topics     pages of `pydoc`, for a quick try without a network: each Python has others

Makes OUT/TEXT/tokenizer and OUT/TEXT/shards with `electra-dist data`; what is there already stays.
Nothing of the texts is kept in this repository.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from electra_dist.errors import EXIT_OK, UserError
from electra_dist.files.writing import whole_file

CLI = "electra_dist.cli"
#: Where the texts lie unless another folder is named.
FOLDER = Path("runs/reference-data")

#: What pip downloads, in the format of a requirements file.
REQUIREMENT = (
    "Django==5.2 --hash=sha256:1a47f7a7a3d43ce64570d350e008d2949abe8c7e21737b351b6a1611277c6d89\n"
)
ARCHIVE = "Django-5.2.tar.gz"
#: Where the pages lie in it, and how their names end.
PAGES = "Django-5.2/docs/"
SUFFIX = ".txt"
ARTICLES = (
    "hub:wikimedia/wikipedia?config=20231101.simple"
    "&revision=b04c8d1ceb2f5cd4588862100d08de323dccfbaa"
)


@dataclass(frozen=True)
class Text:
    """One text: `source` takes a folder and gives the input of `electra-dist data`; `held_out` is a
    fraction of the documents, larger where they are few.
    """

    source: Callable[[Path], str]
    tokenizer: tuple[str, ...]
    held_out: float


def write_corpus(documents: Iterable[tuple[str, str]], path: Path) -> None:
    """Write (name, text) of each document to a .jsonl."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for name, text in documents:
            file.write(json.dumps({"id": name, "text": text}, ensure_ascii=False) + "\n")


# --- django ---------------------------------------------------------------------------------------


def django(folder: Path) -> str:
    """A .jsonl with one document per page."""
    corpus = folder / "corpus" / "django.jsonl"
    if not corpus.exists():
        with tempfile.TemporaryDirectory(prefix="reference-text-") as scratch:
            write_corpus(pages(download(Path(scratch))), corpus)
    return str(corpus)


def download(folder: Path) -> Path:
    """The archive, in `folder`."""
    requirements = folder / "requirements.txt"
    requirements.write_text(REQUIREMENT, encoding="utf-8")
    run(
        *("pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--require-hashes"),
        *("--requirement", str(requirements), "--dest", str(folder)),
    )
    return folder / ARCHIVE


def pages(archive: Path) -> Iterator[tuple[str, str]]:
    """(name, text) of every page, by name; nothing is unpacked to the disk."""
    with tarfile.open(archive) as file:
        members = [member for member in file.getmembers() if member.isfile()]
        for member in sorted(members, key=lambda member: member.name):
            if member.name.startswith(PAGES) and member.name.endswith(SUFFIX):
                content = file.extractfile(member)
                assert content is not None  # a regular file has content
                yield member.name.removeprefix(PAGES), content.read().decode("utf-8")


# --- topics ---------------------------------------------------------------------------------------


def topics(folder: Path) -> str:
    """A .jsonl with one document per topic."""
    from pydoc_data.topics import topics as texts

    corpus = folder / "corpus" / "topics.jsonl"
    write_corpus(sorted(texts.items()), corpus)
    return str(corpus)


# --- all texts ------------------------------------------------------------------------------------


TEXTS = {
    "django": Text(django, ("--vocab-size", "8192"), held_out=0.05),
    "topics": Text(topics, ("--vocab-size", "512"), held_out=0.2),
    "wikipedia": Text(lambda _: ARTICLES, ("--vocab-size", "30522", "--lowercase"), held_out=0.005),
}


def write_shards(name: str, out: Path) -> Path:
    """The shards of a text, in `out/name`."""
    text = TEXTS[name]
    folder = out / name
    tokenizer = folder / "tokenizer"
    shards = folder / "shards"
    if (shards / "manifest.json").exists():
        return shards
    source = ("--input", text.source(folder))
    if not tokenizer.exists():
        run(CLI, "data", "tokenizer", *source, "--out", str(tokenizer), *text.tokenizer)
    run(
        *(CLI, "data", "build", *source, "--tokenizer", str(tokenizer), "--out", str(shards)),
        *("--validation", str(text.held_out)),
    )
    return shards


def run(module: str, *words: str) -> None:
    """Run a module of this Python; raises `UserError` where it fails."""
    status = subprocess.run([sys.executable, "-m", module, *words], check=False).returncode
    if status != EXIT_OK:
        raise UserError(
            f"{module} {words[0]} ended with exit status {status}, see above; the same command goes"
            " on (the texts `django` and `wikipedia` need a network)"
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", choices=sorted(TEXTS))
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="DIR")
    arguments = parser.parse_args()
    try:
        print(write_shards(arguments.text, arguments.out))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
