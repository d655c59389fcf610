"""Draw the reference curves into docs/reference-curves.png, and write the table of
docs/reference-curves.md, from the files of `electra_dist.references`.

    python docs/make_references.py            writes both
    python docs/make_references.py --check    exit status 1 where the table says something else

The picture has three more runs of the recipe `quick`, which the tests know too: a fourth seed, and
two that are wrong.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

from made import write_or_check

from electra_dist.references import Reference, all_references
from electra_dist.runs import metrics
from electra_dist.runs.metrics import Metric

PICTURE = Path(__file__).with_name("reference-curves.png")
PAGE = PICTURE.with_suffix(".md")
TRIALS = PAGE.parents[1] / "tests" / "samples" / "reference-runs.jsonl"
_BEGIN = "<!-- references: written by docs/make_references.py -->\n"
_END = "<!-- references: end -->\n"
#: Rows of the picture.
DRAWN = (metrics.GENERATOR_LOSS, metrics.DISCRIMINATOR_LOSS, metrics.AUC)
#: Runs of the recipe `quick`: name in the file -> what the legend says, colour.
LEGEND = {
    "fourth-seed": ("a fourth seed", "#1b7837"),
    "wrong-lr": ("a learning rate of a fifth", "#b2182b"),
    "broken-sampler": ("a sampler almost without chance", "#e08214"),
}

Curve = dict[int, float]


# --- the table ------------------------------------------------------------------------------------


def table() -> str:
    """One line per reference: what it is, and the last held-out values."""
    lines = [
        "| name | row length | layers of G and D | steps | real tokens | G loss | D loss | AUC |\n",
        "|---|---:|---:|---:|---:|---:|---:|---:|\n",
    ]
    for reference in all_references():
        config = reference.config
        layers = f"{config.model.generator.layers} and {config.model.discriminator.layers}"
        cells = [
            f"`{reference.name}`",
            str(config.data.row_length),
            layers,
            f"{config.train.steps:,}",
            f"{reference.real_tokens / 1e6:.1f} M",
            *(last(reference, metric) for metric in DRAWN),
        ]
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)


def last(reference: Reference, metric: Metric) -> str:
    """`5.812 ± 0.120`: the end of the band of the held-out rows."""
    band = reference.band(metric.name_held_out)
    assert band is not None  # every reference has these metrics
    return f"{band.middle[-1]:.3f} ± {band.high[-1] - band.middle[-1]:.3f}"


def page() -> str:
    """The page with the table as it should be."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{table()}\n{_END}{after}"


# --- the picture ----------------------------------------------------------------------------------


def trials(metric: str) -> dict[str, Curve]:
    """One metric of the three other runs of `quick`, by name."""
    found: dict[str, Curve] = defaultdict(dict)
    for line in TRIALS.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if metric in row:
            found[row["run"]][row["step"]] = row[metric]
    return found


def draw(out: Path) -> None:
    """A column per reference, a row per metric."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    references = all_references()
    figure, grid = plt.subplots(
        len(DRAWN),
        len(references),
        figsize=(11, 8),
        sharex="col",
        squeeze=False,
        constrained_layout=True,
    )
    for column, reference in enumerate(references):
        grid[0][column].set_title(reference.name)
        grid[-1][column].set_xlabel("step")
        for axes, metric in zip(grid[:, column], DRAWN, strict=True):
            band = reference.band(metric.name)
            assert band is not None
            axes.fill_between(band.steps, band.low, band.high, color="#c6d4e8", label="the band")
            for values in reference.curves[metric.name].values:
                axes.plot(band.steps, values, color="#37506f", linewidth=0.7, label="its seeds")
            if reference.name == "quick":
                for name, curve in trials(metric.name).items():
                    said, colour = LEGEND[name]
                    axes.plot(*zip(*curve.items(), strict=True), color=colour, label=said)
    for axes, metric in zip(grid[:, 0], DRAWN, strict=True):
        axes.set_ylabel(metric.name)
    drawn = [axes.get_legend_handles_labels() for axes in grid.flat]
    handles = {
        word: line for lines, words in drawn for line, word in zip(lines, words, strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))
    figure.savefig(out, dpi=100)
    plt.close(figure)


def main() -> int:
    """Write or check; returns an exit status."""
    status = write_or_check(PAGE, page())
    if "--check" not in sys.argv[1:]:
        draw(PICTURE)
    return status


if __name__ == "__main__":
    sys.exit(main())
