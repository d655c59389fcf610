"""A `CleanReport` as a picture."""

from __future__ import annotations

from pathlib import Path

from data_tools.cleaning.report import CleanReport
from electra_dist.files.pictures import pyplot, save_picture


def draw_report(report: CleanReport, out: Path) -> None:
    """Draw into the PNG `out`."""
    figure, axes = pyplot().subplots(1, 2, figsize=(12, 5))
    save_picture(figure, out)
