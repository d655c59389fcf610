"""How fast the filters of `data clean` are on one core, each next to a plain peer.

    python benchmarks/clean_speed.py --input text.txt
    python benchmarks/clean_speed.py --input pages.jsonl.gz --json

Prints MB of UTF-8 text per second, the best of `--repeats`, and the ratio to the peer in the same
run. A peer is what somebody would write in a few lines with the same library or with plain Python:

    html        the call of Resiliparse alone, on a page made of each document
    length      the words of the document, split and counted
    letters     a loop over the characters
    repetition  the filter of datatrove over words between white space, where it is installed; else
                `collections.Counter` over tuples of 2 to 10 words
    language    the call of py3langid alone, over the whole document
    exact       a set of the SHA-1 of the texts
    near        datasketch (MinHash of the same runs of words, as many numbers), where it is
                installed; else the call of rensa alone

The last row is the whole command on one worker, starting, reading and writing included, with all
filters that take text as it is, and bounds that drop next to nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import html
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from data_tools.cleaning.run import CleanOptions, clean_corpus
from data_tools.filters.catalog import FILTERS, parse_filters
from data_tools.filters.document import Document
from data_tools.filters.kinds import Filter, KeyFilter, TextFilter
from data_tools.filters.near import Near, shingles
from data_tools.sources import find_inputs, read_documents, split_parts

Peer = Callable[[Sequence[str]], object]


def read(paths: list[Path], most_bytes: int) -> list[str]:
    """The first documents of the input, of about `most_bytes` together."""
    texts = []
    size = 0
    for part in split_parts(find_inputs(paths)):
        for text in read_documents(part):
            if not text.strip():
                continue
            texts.append(text)
            size += len(text.encode("utf-8", "replace"))
            if size >= most_bytes:
                return texts
    return texts


def pages(texts: Sequence[str]) -> list[str]:
    """A page with a menu and a footer around each document."""
    made = []
    for text in texts:
        paragraphs = "".join(f"<p>{html.escape(line)}</p>" for line in text.split("\n"))
        made.append(
            "<!DOCTYPE html><html><head><title>page</title></head><body><nav><a href='/'>Home</a>"
            f"</nav><main>{paragraphs}</main><footer>Imprint</footer></body></html>"
        )
    return made


def best(function: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def apply(one: Filter, texts: Sequence[str]) -> None:
    """One filter over documents that nothing else has looked at."""
    for text in texts:
        document = Document(text)
        if isinstance(one, KeyFilter):
            one.keys(document)
        elif isinstance(one, TextFilter):
            one.why_not(one.rewrite(document))


# --- peers ----------------------------------------------------------------------------------------


def peer_html(texts: Sequence[str]) -> None:
    from resiliparse.extract.html2text import extract_plain_text

    for text in texts:
        extract_plain_text(text, main_content=True)


def peer_length(texts: Sequence[str]) -> None:
    for text in texts:
        len(text.split())


def peer_letters(texts: Sequence[str]) -> None:
    for text in texts:
        sum(character.isalpha() for character in text)


def repetition_peer() -> tuple[str, Peer]:
    """datatrove where it is installed, without its tokenizer of words; else plain Python."""
    try:
        from datatrove.data import Document as TheirDocument
        from datatrove.pipeline.filters import gopher_repetition_filter as theirs
    except ImportError:
        return "Counter of tuples", count_runs
    theirs.split_into_words = lambda text, _: text.split()
    applied = theirs.GopherRepetitionFilter()

    def filtered(texts: Sequence[str]) -> None:
        for text in texts:
            applied.filter(TheirDocument(text=text, id=""))

    return "datatrove", filtered


def count_runs(texts: Sequence[str]) -> None:
    """The most frequent run of each length."""
    for text in texts:
        words = text.split()
        for count in range(2, 11):
            runs = zip(*(words[start:] for start in range(count)), strict=False)
            Counter(runs).most_common(1)


def peer_language(texts: Sequence[str]) -> None:
    from py3langid import classify

    for text in texts:
        classify(text)


def peer_exact(texts: Sequence[str]) -> None:
    {
        hashlib.sha1(text.encode("utf-8", "replace"), usedforsecurity=False).digest()
        for text in texts
    }


def near_peer() -> tuple[str, Peer]:
    """datasketch where it is installed, else rensa."""
    near = Near()
    numbers = near.bands * near.rows
    try:
        from datasketch import MinHash
    except ImportError:
        from rensa import RMinHash

        def bare(texts: Sequence[str]) -> None:
            for text in texts:
                signature = RMinHash(numbers, 1)
                signature.update(shingles(text.lower().split(), near.ngram))
                signature.digest()

        return "rensa alone", bare

    def sketched(texts: Sequence[str]) -> None:
        for text in texts:
            signature = MinHash(num_perm=numbers)
            runs = shingles(text.lower().split(), near.ngram)
            signature.update_batch([run.encode("utf-8", "replace") for run in runs])

    return "datasketch", sketched


def peers() -> dict[str, tuple[str, Peer]]:
    """Name of a filter -> the name of its peer, and the peer."""
    return {
        "html": ("Resiliparse alone", peer_html),
        "length": ("split", peer_length),
        "letters": ("loop over characters", peer_letters),
        "repetition": repetition_peer(),
        "language": ("py3langid alone", peer_language),
        "exact": ("set of SHA-1", peer_exact),
        "near": near_peer(),
    }


def lenient() -> list[str]:
    """All filters of text, with bounds that drop next to nothing: each sees all documents."""
    shares = ",".join(f"{one.name}=1" for one in FILTERS["repetition"].parameters())
    return [
        "length:min_words=0,max_words=0,min_word_length=0,max_word_length=0",
        "letters:min_letters=0,min_words_with_letters=0,max_symbols=1000000",
        f"repetition:{shares}",
        "language:min_probability=0",
        "exact",
        "near",
    ]


def whole_command(texts: Sequence[str]) -> float:
    """Seconds of the command over these documents, on one worker."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in.jsonl")
        lines = (json.dumps({"text": text}) + "\n" for text in texts)
        source.write_text("".join(lines), encoding="utf-8")
        filters = parse_filters(lenient())
        start = time.perf_counter()
        clean_corpus([source], Path(folder, "out"), filters, CleanOptions(picture=False))
        return time.perf_counter() - start


def measure(texts: Sequence[str], repeats: int) -> list[dict[str, str | float]]:
    """One row per filter, and one for the command."""
    made = pages(texts)
    rows: list[dict[str, str | float]] = []
    for name, (peer, call) in peers().items():
        given = made if name == "html" else texts
        size = sum(len(text.encode("utf-8", "replace")) for text in given) / 1e6
        one = FILTERS[name]()
        apply(one, given[:1])  # models and tables are loaded once per process
        call(given[:1])
        own = size / best(lambda one=one, given=given: apply(one, given), repeats)
        other = size / best(lambda call=call, given=given: call(given), repeats)
        rows.append(
            {"filter": name, "mb_per_s": own, "peer": peer, "peer_mb_per_s": other}
            | {"ratio": own / other}
        )
    size = sum(len(text.encode("utf-8", "replace")) for text in texts) / 1e6
    rows.append({"filter": "whole command", "mb_per_s": size / whole_command(texts)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", required=True, nargs="+", type=Path, metavar="PATH")
    parser.add_argument("--megabytes", type=float, default=10, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    texts = read(arguments.input, int(arguments.megabytes * 1e6))
    rows = measure(texts, arguments.repeats)
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{len(texts):,} documents, {sum(map(len, texts)) / len(texts):,.0f} characters each")
    for row in rows:
        line = f"{row['filter']:<14}{row['mb_per_s']:8.1f} MB/s"
        if "peer" in row:
            line += f"   {row['ratio']:6.2f} x {row['peer']} ({row['peer_mb_per_s']:.1f} MB/s)"
        print(line)


if __name__ == "__main__":
    main()
