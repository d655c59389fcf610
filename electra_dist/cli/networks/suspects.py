"""`electra-dist predict --suspects`: the words of texts that do not belong there."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from electra_dist.cli.networks.chosen import only_model
from electra_dist.cli.parsers import console, print_result

if TYPE_CHECKING:
    from electra_dist.suspects.findings import JudgedText

#: Largest file that `--whole` takes.
_MOST_BYTES = 16 << 20
#: Options that mean nothing without `--suspects`, and what they are when not given.
_OWN = {"generator": None, "threshold": None, "html": None, "whole": False}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of `predict` that are about suspects."""
    group = parser.add_argument_group(
        "suspects", "the words that do not belong, by a discriminator"
    )
    group.add_argument("--suspects", action="store_true", help="mark them")
    group.add_argument(
        "--generator",
        type=Path,
        metavar="DIR",
        help="its suggestions for the suspects; default: the folder `generator` next to MODEL that"
        " the same run was exported to, where there is one",
    )
    group.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="mark words from this probability on (default: 0.5)",
    )
    group.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page with the marked texts"
    )
    group.add_argument(
        "--whole", action="store_true", help="the input is one text, line ends and all"
    )


def wanted(arguments: argparse.Namespace) -> bool:
    """Whether suspects are asked for; raises `UserError` for an option that needs `--suspects`."""
    from electra_dist.errors import UserError

    if arguments.suspects and arguments.labels is not None:
        raise UserError("--labels and --suspects: give one of them")
    if arguments.suspects:
        return True
    for name, default in _OWN.items():
        if getattr(arguments, name) != default:
            raise UserError(f"--{name}: is an option of --suspects; give that too")
    return False


def run(arguments: argparse.Namespace) -> int:
    """Mark them; returns an exit status."""
    from electra_dist.files.staging import check_folder_can_be_made
    from electra_dist.parallel.hardware import device_of_command
    from electra_dist.suspects.finding import THRESHOLD, Finder, generator_beside

    if arguments.html:
        check_folder_can_be_made(arguments.html)
    model = only_model(arguments, "--suspects")
    texts = _read(arguments)
    generator = arguments.generator or generator_beside(model)
    threshold = THRESHOLD
    if arguments.threshold is not None:
        threshold = arguments.threshold
    finder = Finder.open(
        model,
        generator,
        device_of_command(arguments.device),
        threshold,
        arguments.count,
    )
    judged: Iterable[JudgedText] = finder.find(texts)
    if arguments.html:
        judged = list(judged)
        _write_page(arguments, judged, generator, threshold)
    if arguments.out or arguments.json or not arguments.html:
        _give(arguments, judged)
    return 0


def _read(arguments: argparse.Namespace) -> list[str]:
    """The texts of the file or of standard input, blank ones too; or all of it as one text."""
    from electra_dist.errors import DataError
    from electra_dist.finetune.labelled import Columns, examples_of_lines, read_examples

    if arguments.whole:
        return [_read_whole(arguments.input)]
    if arguments.input:
        return [example.text for example in read_examples(arguments.input, Columns())]
    texts = [example.text for example in examples_of_lines(sys.stdin)]
    if not any(text.strip() for text in texts):
        raise DataError("standard input: holds no text; give --input FILE or one text a line")
    return texts


def _read_whole(path: Path | None) -> str:
    from electra_dist.errors import DataError
    from electra_dist.files.reading import read_bounded

    source = path or Path("standard input")
    try:
        if path:
            content = read_bounded(path, _MOST_BYTES, follow=True)
        else:
            content = sys.stdin.buffer.read(_MOST_BYTES + 1)
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {error.strerror}") from error
    if len(content) > _MOST_BYTES:
        raise DataError(f"{source}: is larger than {_MOST_BYTES:,} bytes, the most of one text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: is not UTF-8 (byte {error.start}): convert it first") from error


def _write_page(
    arguments: argparse.Namespace,
    judged: list[JudgedText],
    generator: Path | None,
    threshold: float,
) -> None:
    from datetime import UTC, datetime

    from electra_dist.files.writing import write_atomically, writing
    from electra_dist.suspects.page import Source, render_page

    name = None
    if generator is not None:
        name = str(generator)
    source = Source(str(arguments.models[0]), name, threshold, datetime.now(UTC))
    with writing(arguments.html, "the page"):
        write_atomically(arguments.html, render_page(judged, source))
    found = sum(len(one.suspects) for one in judged)
    words = sum(len(one.words) for one in judged)
    print(f"{arguments.html}: {found:,} of {words:,} words are marked", file=sys.stderr)


def _give(arguments: argparse.Namespace, judged: Iterable[JudgedText]) -> None:
    """Into the file, or printed: for programs, as a table, or coloured in a terminal."""
    from electra_dist.files.writing import write_atomically
    from electra_dist.suspects.shown import print_marked

    lines = _table(judged)
    if arguments.json:
        lines = (json.dumps(one.content(), ensure_ascii=False) for one in judged)
    if arguments.out:
        write_atomically(arguments.out, "".join(line + "\n" for line in lines))
    elif arguments.json or not sys.stdout.isatty():
        for line in lines:
            print_result(line)
    else:
        terminal = console()
        for one in judged:
            print_marked(terminal, one)


def _table(judged: Iterable[JudgedText]) -> Iterator[str]:
    from electra_dist.suspects.shown import COLUMNS, table_rows

    yield "\t".join(COLUMNS)
    for number, one in enumerate(judged, 1):
        yield from ("\t".join(row) for row in table_rows(number, one))
