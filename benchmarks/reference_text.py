"""The text of the reference curves: the documentation of one release of Django, 6 MB of technical
English, the same to the byte on every machine.

    python benchmarks/reference_text.py --out runs/reference-data

Downloads the source distribution with pip, which checks its SHA-256, and writes every page of the
documentation as a document of `corpus/django.jsonl`. Then `electra-dist data` makes a tokenizer and
shards of it, whose fingerprint must be the one that the references were made with. The text has
Django's own licence (BSD, three clauses); nothing of it is kept in this repository.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from electra_dist.files.writing import whole_file

#: What pip downloads, in the format of a requirements file.
REQUIREMENT = (
    "Django==5.2 --hash=sha256:1a47f7a7a3d43ce64570d350e008d2949abe8c7e21737b351b6a1611277c6d89\n"
)
ARCHIVE = "Django-5.2.tar.gz"
#: Where the pages lie in it, and how their names end.
PAGES = "Django-5.2/docs/"
SUFFIX = ".txt"
VOCABULARY = 8192
#: Of the documents, held out: 619 pages are few, and a held-out loss of six would say little.
HELD_OUT = 0.05


def download(folder: Path) -> Path:
    """The archive, in `folder`."""
    requirements = folder / "requirements.txt"
    requirements.write_text(REQUIREMENT, encoding="utf-8")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
            *("--no-binary", ":all:", "--require-hashes"),
            *("--requirement", str(requirements), "--dest", str(folder)),
        ],
        check=True,
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


def write_corpus(archive: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for name, text in pages(archive):
            file.write(json.dumps({"id": name, "text": text}, ensure_ascii=False) + "\n")


def electra_dist(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "electra_dist.cli", *words], check=True)


def write_shards(out: Path) -> Path:
    """Corpus, tokenizer and shards in `out`; what is there already stays."""
    corpus = out / "corpus" / "django.jsonl"
    tokenizer = out / "tokenizer"
    shards = out / "shards"
    if not corpus.exists():
        with tempfile.TemporaryDirectory(prefix="reference-text-") as folder:
            write_corpus(download(Path(folder)), corpus)
    if not tokenizer.exists():
        words = ("--input", str(corpus), "--out", str(tokenizer), "--vocab-size", str(VOCABULARY))
        electra_dist("data", "tokenizer", *words)
    if not (shards / "manifest.json").exists():
        words = ("--input", str(corpus), "--tokenizer", str(tokenizer), "--out", str(shards))
        electra_dist("data", "build", *words, "--validation", str(HELD_OUT))
    return shards


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/reference-data"), metavar="DIR")
    arguments = parser.parse_args()
    print(write_shards(arguments.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
