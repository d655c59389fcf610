"""Pictures of results: matplotlib without a screen, and a PNG that is whole or absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from electra_dist.errors import UserError
from electra_dist.files.writing import whole_file


def pyplot() -> Any:
    """`matplotlib.pyplot`, drawing into files only;
    raises `UserError` where matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise UserError(
            "the picture needs matplotlib: pip install 'electra-dist[train]'"
        ) from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def check_picture_path(out: Path) -> None:
    """Raise `UserError` when no picture can be written to `out`:
    asked before the work, not after it.
    """
    if not out.parent.is_dir():
        raise UserError(f"{out}: there is no folder {out.parent}; make it first")
    if out.is_dir():
        raise UserError(f"{out}: is a folder; give the name of a file in it")


def save_picture(figure: Any, out: Path) -> None:
    """Write the PNG `out` and close the figure;
    what was there is replaced only by a whole picture.
    """
    check_picture_path(out)
    try:
        with whole_file(out) as temporary:
            figure.savefig(temporary, dpi=110, format="png")
    finally:
        pyplot().close(figure)
