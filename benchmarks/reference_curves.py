"""Reference curves: train one recipe with a few seeds on the same data, and keep how its losses and
scores went.

    python benchmarks/reference_curves.py quick
    python benchmarks/reference_curves.py my.yaml --seeds 1 2 3 4 5 --out references

RECIPE is the NAME of configs/reference-NAME.yaml, or a configuration file of one's own. The text of
the recipes that come with the program is downloaded and encoded first (`reference_text.py`), where
it is not there. Each seed is a run of its own, reference-NAME-seedN in the folder of runs: one that
is finished is not trained again, and an interrupted one goes on. At the end OUT/NAME.json is
written.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reference_text import FOLDER, TEXTS, write_shards

from electra_dist.config import Config, load
from electra_dist.config.recipes import recipe_path
from electra_dist.data.sources import open_data
from electra_dist.errors import EXIT_OK, DataError, UserError
from electra_dist.files.writing import write_atomically
from electra_dist.measure.bench import device_name
from electra_dist.objectives import Metric
from electra_dist.parallel.hardware import device_of_command
from electra_dist.references import Curve, Reference
from electra_dist.runs import metrics
from electra_dist.runs.directory import RunDir

#: What is kept, of training and of the held-out rows.
METRICS = (
    metrics.GENERATOR_LOSS,
    metrics.DISCRIMINATOR_LOSS,
    metrics.GENERATOR_ACCURACY,
    metrics.ACCURACY,
    metrics.AUC,
    metrics.REPLACED_FRACTION,
)
#: Points of a curve at most.
POINTS = 60
#: Digits that are kept of a value; seeds differ in the third.
DIGITS = 5
COMMAND = "benchmarks/reference_curves.py"
PREFIX = "reference-"
SUFFIX = ".yaml"
OUT = Path(__file__).resolve().parents[1] / "electra_dist" / "references" / "curves"

Values = dict[int, float]  # step -> value of one metric of one run


@dataclass(frozen=True)
class Task:
    """What is trained: `called` is what the user named it by, `overrides` come to every seed, and
    `name` is that of the reference.
    """

    name: str
    path: Path
    called: str
    overrides: tuple[str, ...]
    runs: Path

    def config(self, seed: int) -> Config:
        return load(self.path, self.words(seed))

    def words(self, seed: int) -> tuple[str, ...]:
        """The overrides of a seed."""
        own = (f"train.seed={seed}", f"run.dir={self.runs}")
        return (*self.overrides, *own, f"run.name={PREFIX}{self.name}-seed{seed}")


def task_of(recipe: str, data: Path, runs: Path) -> Task:
    """The task of a name or a file, with its text ready; raises `ConfigError` for a name that is
    none.
    """
    if recipe.endswith(SUFFIX):
        path = Path(recipe)
    else:
        path = recipe_path(PREFIX + recipe)
    overrides = []
    text = text_of(load(path))
    if text is not None:
        overrides.append(f"data.shards={write_shards(text, data)}")
    return Task(path.stem.removeprefix(PREFIX), path, recipe, tuple(overrides), runs)


def text_of(config: Config) -> str | None:
    """The text of `reference_text.py` that a recipe names by the folder of its shards."""
    for name in TEXTS:
        if config.data.folders == (str(FOLDER / name / "shards"),):
            return name
    return None


# --- training -------------------------------------------------------------------------------------


def train(task: Task, seed: int) -> RunDir:
    """The finished run of a seed; raises `UserError` where training did not finish."""
    words = task.words(seed)
    command = [sys.executable, "-m", "electra_dist.cli", "train", str(task.path), *words]
    status = subprocess.run(command, check=False).returncode
    if status != EXIT_OK:
        raise UserError(
            f"{task.path}: training with seed {seed} ended with exit status {status}; correct what"
            " it says, then run the same command again: it goes on"
        )
    return RunDir(task.config(seed).run.path)


# --- the curves -----------------------------------------------------------------------------------


def read_values(run: RunDir, name: str) -> Values:
    """One metric of a run; where steps were trained again, the later row counts.

    Step 0 is left out: random weights alone make its values, and seeds differ there by more than
    they ever do again.
    """
    rows = [row for row in run.read_metrics() if row["step"] > 0 and row.get(name) is not None]
    return {row["step"]: float(row[name]) for row in rows}


def curve_of(runs: Sequence[RunDir], name: str) -> Curve:
    """One metric of all seeds, thinned and rounded.

    Raises `DataError` where a run has other steps than the first one.
    """
    of_runs = [read_values(run, name) for run in runs]
    logged = sorted(of_runs[0])
    for run, values in zip(runs, of_runs, strict=True):
        if not values or sorted(values) != logged:
            raise DataError(
                f"{run.metrics}: {len(values)} values of {name}, and the first seed has"
                f" {len(logged)}, or others; expected the same steps, at least one: train all"
                " seeds with the same configuration"
            )
    steps = thinned(logged)
    rounded = [tuple(float(f"{values[s]:.{DIGITS}g}") for s in steps) for values in of_runs]
    return Curve(tuple(steps), tuple(rounded))


def thinned(steps: Sequence[int]) -> list[int]:
    """At most `POINTS` of the steps at even distances, the last one among them."""
    stride = -(-len(steps) // POINTS)
    return list(reversed(steps[::-1][::stride]))


def names_of(metric: Metric) -> tuple[str, str]:
    return (metric.name, metric.name_held_out)


# --- the reference --------------------------------------------------------------------------------


def reference_of(task: Task, seeds: Sequence[int], runs: Sequence[RunDir]) -> Reference:
    """The reference of finished runs."""
    config = task.config(seeds[0])
    data = open_data(config)
    facts = runs[0].read_facts()
    last = max(read_values(runs[0], metrics.REAL_TOKENS.name).items())
    words = (COMMAND, task.called, "--seeds", *map(str, seeds))
    return Reference(
        name=task.name,
        recipe=task.path.read_text(encoding="utf-8"),
        command=f"python {shlex.join(words)}",
        device=device_name(device_of_command(None)),
        software={version.package: version.number for version in facts.starts[-1].software},
        real_tokens=int(last[1]),
        tokenizer=data.tokenizer_fingerprint,
        dataset=data.fingerprint,
        seeds=tuple(seeds),
        every=config.tracking.every,
        curves={name: curve_of(runs, name) for metric in METRICS for name in names_of(metric)},
    )


def write(reference: Reference, out: Path) -> Path:
    """Write the reference to the folder `out`; raises `DataError` where it could not be read."""
    path = out / f"{reference.name}.json"
    text = text_of_file(reference)
    try:
        Reference.from_json(json.loads(text))
    except ValueError as error:
        raise DataError(f"{path}: not written, because it could not be read: {error}") from error
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)
    return path


def text_of_file(reference: Reference) -> str:
    """JSON with a line for each key and each curve."""
    content = reference.to_json()
    curves = content.pop("curves")
    parts = [f" {json.dumps(key)}: {compact(value)}" for key, value in content.items()]
    lines = ",\n".join(f"  {json.dumps(name)}: {compact(curve)}" for name, curve in curves.items())
    parts.append(f' "curves": {{\n{lines}\n }}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", metavar="RECIPE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help="of the JSON file")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR")
    parser.add_argument("--data", type=Path, default=FOLDER, metavar="DIR", help="of the texts")
    arguments = parser.parse_args()
    seeds = list(dict.fromkeys(arguments.seeds))
    try:
        if len(seeds) < 2:
            raise UserError("--seeds: one seed has no spread; give at least two, better three")
        task = task_of(arguments.recipe, arguments.data, arguments.runs)
        runs = [train(task, seed) for seed in seeds]
        print(write(reference_of(task, seeds, runs), arguments.out))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
