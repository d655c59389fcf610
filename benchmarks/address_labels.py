"""Addresses with a label for each word: files to train and to score a token classification with.

    python benchmarks/address_labels.py --out addresses

pip downloads the source distribution of `usaddress` and checks its SHA-256 (licence MIT). Its
`training/labeled.xml` has 1,513 addresses of the United States, labelled by hand: street names,
places, states and other kinds. Neighbouring words of one kind are one entity here, as `usaddress`
itself takes them. Every fifth address is held out.

Makes OUT/train.conll and OUT/dev.conll, two columns apart by tabs, in IOB2. Nothing of the
addresses is kept in this repository.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from electra_dist.files.writing import write_atomically

#: What pip downloads, in the format of a requirements file.
REQUIREMENT = (
    "usaddress==0.5.16"
    " --hash=sha256:f7e614e2489c159cf85be1b6f86edbfaf329dbeedef4d002a025757afd1ec6c6\n"
)
ARCHIVE = "usaddress-0.5.16.tar.gz"
LABELLED = "usaddress-0.5.16/training/labeled.xml"
#: Of so many addresses, one is held out.
HELD_OUT = 5

#: Of one address: (word, label).
Address = list[tuple[str, str]]


def download(folder: Path) -> bytes:
    """The labelled addresses, XML."""
    requirements = folder / "requirements.txt"
    requirements.write_text(REQUIREMENT, encoding="utf-8")
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes")
    # pip asks the source for its name and version: with what is installed, nothing is built for it
    source = ("--no-binary", "usaddress", "--no-build-isolation")
    subprocess.run(
        (*pip, *source, "--requirement", str(requirements), "--dest", str(folder)), check=True
    )
    with tarfile.open(folder / ARCHIVE) as archive:
        content = archive.extractfile(LABELLED)
        assert content is not None  # a regular file has content
        return content.read()


def addresses(content: bytes) -> Iterator[Address]:
    """Words and labels of each address."""
    for address in ElementTree.fromstring(content):  # noqa: S314 - its checksum was compared
        labelled: Address = []
        for kind, parts in groupby(address, key=lambda part: part.tag):
            words = [word for part in parts for word in (part.text or "").split()]
            for number, word in enumerate(words):
                prefix = "I" if number else "B"
                labelled.append((word, f"{prefix}-{kind}"))
        if labelled:
            yield labelled


def columns(found: list[Address]) -> str:
    """A file of them."""
    return "".join(
        "".join(f"{word}\t{label}\n" for word, label in address) + "\n" for address in found
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the two files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="address-labels-") as scratch:
        found = list(addresses(download(Path(scratch))))
    options.out.mkdir(parents=True, exist_ok=True)
    files = {
        "train.conll": [one for at, one in enumerate(found) if at % HELD_OUT],
        "dev.conll": found[::HELD_OUT],
    }
    for name, own in files.items():
        write_atomically(options.out / name, columns(own))
        print(f"{options.out / name}: {len(own):,} addresses, {sum(map(len, own)):,} words")


if __name__ == "__main__":
    main()
