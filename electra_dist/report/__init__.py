"""What came of one run or of many, from their folders alone: numbers, a picture, and one page.

Comes in: run directories, also copies without their data. Goes out: `RunReport` for the terminal
and for programs, a PNG of the curves of a run, and a self-contained HTML page that compares runs.
Needs no torch; matplotlib for the picture, plotly and Jinja2 for the page.
"""

from electra_dist.report.comparison import Comparison, compare
from electra_dist.report.page import render_page
from electra_dist.report.picture import plot_curves
from electra_dist.report.summary import RunReport, read_report, report_of

__all__ = [
    "Comparison",
    "RunReport",
    "axes",
    "compare",
    "comparison",
    "curves",
    "differences",
    "evidence",
    "happenings",
    "loading",
    "page",
    "plot_curves",
    "read_report",
    "render_page",
    "report_of",
    "summary",
    "verdict",
]
