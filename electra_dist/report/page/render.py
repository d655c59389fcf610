"""Puts runs, charts and tables into the template: the text of the page.

Comes in: a comparison. Goes out: HTML without a single request to anywhere. Two scripts run, the
plotting library's and the page's own; the policy of the page names them by their hashes, so that
nothing else can, whatever a run is called.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from electra_dist import __version__
from electra_dist.errors import UserError
from electra_dist.report import axes
from electra_dist.report.comparison import Comparison
from electra_dist.report.curves import MOST_POINTS, SMOOTHED_OVER
from electra_dist.report.differences import (
    comparable,
    key_differences,
    not_of_recipe,
    warnings_of,
)
from electra_dist.report.page import charts, content, words

_HERE = Path(__file__).parent


def render_page(comparison: Comparison, made: datetime) -> str:
    """The page, made at the time `made`; raises `UserError` where plotly or Jinja2 is missing."""
    runs = comparison.runs
    script = _plotly()
    own_script = _shipped("report.js")
    groups = charts.groups_of(runs)
    views = content.run_views(runs)
    reports = [view.report for view in views]
    warnings = warnings_of(runs)
    if comparison.reference is not None:
        warnings += not_of_recipe(runs, comparison.reference)
    split = content.split_steps(runs)
    data = charts.drawing(runs, groups, comparison.reference)
    data["parts"] = _parts(split)
    evaluated = content.evaluation_curves(views)
    data["evaluations"] = [asdict(one) for one in evaluated]
    page: str = _template().render(
        title=_title(comparison),
        made=made,
        version=__version__,
        policy=_policy((script, own_script)),
        style=_shipped("report.css"),
        plotly=script,
        script=own_script,
        data=_json(data),
        views=views,
        problems=comparison.problems,
        warnings=warnings,
        reference=comparison.reference,
        axes=axes.AXES,
        untimed=[one.label for one in runs if not axes.has_clock(one)],
        groups=groups,
        evaluated=evaluated,
        split=split,
        part_names=[*content.PARTS.values(), "everything else"],
        sources=content.source_rows(runs),
        differences=key_differences(runs),
        sweep=content.sweep_of(runs, reports, comparable(runs)),
        kinds=content.KINDS,
        marked=content.marked,
        number=words.number,
        most_points=MOST_POINTS,
        smoothed_over=SMOOTHED_OVER,
    )
    return page


def _title(comparison: Comparison) -> str:
    runs = comparison.runs
    if len(runs) == 1:
        return f"Run {runs[0].label}"
    return f"{len(runs)} runs compared"


def _parts(split: Sequence[content.SplitStep]) -> dict[str, Any]:
    """Seconds of each part, a list with one value for each run that has them."""
    rows = [one.all_parts for one in split]
    return {
        "runs": [one.run for one in split],
        "names": [*content.PARTS.values(), "everything else"],
        "seconds": [list(column) for column in zip(*rows, strict=True)],
    }


def _template() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise UserError("the page needs Jinja2: pip install 'electra-dist[report]'") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["broken_at_dots"] = _broken_at_dots
    return environment.get_template("report.html")


def _broken_at_dots(text: str) -> Any:
    """A long key as HTML that may break after each dot."""
    import markupsafe

    return markupsafe.Markup("<wbr>").join(re.split(r"(?<=\.)", text))


def _plotly() -> str:
    """The plotting library's script, which its Python package carries."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise UserError("the page needs plotly: pip install 'electra-dist[report]'") from error
    return _as_script(get_plotlyjs())


def _shipped(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _as_script(text: str) -> str:
    """`text`, which must not end the element that it stands in."""
    if "</script" in text.lower():
        raise UserError("plotly's script ends its own element; install another release of plotly 6")
    return text


def _policy(scripts: Sequence[str]) -> str:
    """Content security policy: these scripts, pictures that are part of the page, no network.

    Styles may stand in the page, because the plotting library sets them where it draws.
    """
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    named = " ".join(f"'sha256-{one}'" for one in hashes)
    return (
        f"default-src 'none'; script-src {named}; style-src 'unsafe-inline';"
        " img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _json(value: Any) -> str:
    """JSON that may stand in an element of a page: no `<` and no `&` in it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("&", "\\u0026")
