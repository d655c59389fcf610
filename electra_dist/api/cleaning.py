"""Cleaning: documents that are worth training on, and a report of the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from data_tools.cleaning.report import CleanReport


def clean_corpus(
    inputs: Sequence[str | Path],
    out: str | Path,
    filters: Sequence[str],
    *,
    workers: int = 1,
    compress: Literal["zst", "gz"] = "zst",
    picture: bool = False,
    examples: int = 3,
    seed: int = 1234,
) -> CleanReport:
    """Apply filters to the documents of `inputs`, and write what is left to a new folder.

    Args:
        inputs: files and folders, as `electra-dist data clean --input` takes them.
        out: the new folder for the documents and `clean-report.json`.
        filters: each `"name"` or `"name:parameter=value,parameter=value"`, as docs/cleaning.md
            lists them; their order does not matter.
        workers: processes; a script with more than one needs `if __name__ == "__main__":`.
        compress: of the files.
        picture: draw `clean-report.png` too.
        examples: of what each filter dropped, at most.
        seed: of the choice of examples.

    Returns:
        What each filter saw and dropped, with examples: the content of `clean-report.json`.

    Raises:
        DataError: unreadable input, a folder that holds something, an unknown filter or
            parameter, filters that drop everything.
        UserError: a package that is not installed.

    Examples:
        >>> report = electra_dist.clean_corpus(["corpus"], "clean", ["length", "exact"])
        >>> [(one.name, one.dropped_documents) for one in report.filters]
    """
    from data_tools.cleaning.run import CleanOptions
    from data_tools.cleaning.run import clean_corpus as clean
    from data_tools.filters.catalog import parse_filters

    options = CleanOptions(
        workers=workers, seed=seed, examples=examples, compress=compress, picture=picture
    )
    return clean([Path(path) for path in inputs], Path(out), parse_filters(filters), options)
