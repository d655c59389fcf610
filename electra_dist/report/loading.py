"""A run directory, read whole for a report: its rows as columns, and what it says of itself.

Comes in: paths of run directories, or of folders of them. Goes out: `LoadedRun`. Everything is
read from the folder alone. What a run of an earlier version, or a copy without its data, does not
tell is None here, and `notes` has a sentence for each such thing.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from electra_dist import config as configuration
from electra_dist import plan
from electra_dist.config import Config
from electra_dist.data.sources import RunData, open_data
from electra_dist.errors import ConfigError, DataError, UserError
from electra_dist.health import Finding, Monitor
from electra_dist.health import Known as KnownToRules
from electra_dist.runs import metrics
from electra_dist.runs.directory import RunDir
from electra_dist.runs.facts import RunFacts
from electra_dist.runs.metrics_log import Row, is_event

Column = npt.NDArray[np.float64]
#: Runs of one folder, at most.
MOST_RUNS = 500
#: A greater step is no step of a training.
_MOST_STEPS = 2**53


@dataclass(frozen=True)
class Table:
    """Rows of metrics.jsonl as columns: `steps` ascend, NaN stands for what a row has not."""

    steps: Column
    columns: dict[str, Column]

    def __len__(self) -> int:
        return len(self.steps)

    def column(self, name: str) -> Column:
        """The values of `name`, NaN everywhere where no row has it."""
        if name in self.columns:
            return self.columns[name]
        return np.full(len(self.steps), math.nan)

    def last(self, name: str) -> float | None:
        """The newest value of `name`; None where there is none."""
        known = self.column(name)
        known = known[~np.isnan(known)]
        if not len(known):
            return None
        return float(known[-1])


@dataclass(frozen=True)
class Known:
    """What a run tells of its networks and its corpus; None where nothing does."""

    parameters: int | None = None
    vocab_size: int | None = None
    tokenizer: str | None = None
    corpus_tokens: int | None = None
    unigram_entropy: float | None = None
    promised_tokens_per_s: float | None = None


@dataclass(frozen=True)
class LoadedRun:
    """One run, read.

    label     names it among the runs of one comparison
    config    None where config.yaml cannot be read; `notes` says why
    facts     those of run.json; without any where there is no such file
    trained   rows of training steps
    held_out  rows of validations
    logged    findings of the health rules that the rows tell, oldest first
    judged    what the rules of this version say of the same rows
    broken    lines of metrics.jsonl that are no rows
    foreign   values of known metrics that are no numbers
    notes     sentences: what is not known of this run, and why
    """

    run: RunDir
    label: str
    config: Config | None
    facts: RunFacts
    known: Known
    trained: Table
    held_out: Table
    logged: tuple[Finding, ...] = ()
    judged: tuple[Finding, ...] = ()
    broken: int = 0
    foreign: int = 0
    notes: tuple[str, ...] = ()

    @property
    def last_step(self) -> int:
        """The newest step that was logged."""
        ends = [table.steps[-1] for table in (self.trained, self.held_out) if len(table)]
        return int(max(ends, default=0))


# --- finding runs ---------------------------------------------------------------------------------


def find_runs(paths: Iterable[Path]) -> list[RunDir]:
    """The runs at `paths`, each a run directory or a folder of them (a sweep), in order.

    Links inside a folder are not followed. Raises `UserError` for a path that is neither.
    """
    found: dict[Path, RunDir] = {}
    for path in paths:
        for run in _runs_at(path):
            found.setdefault(run.path.resolve(), run)
    return list(found.values())


def _runs_at(path: Path) -> list[RunDir]:
    if RunDir(path).config.is_file() or not path.is_dir():
        return [RunDir.existing(path)]
    folders = [entry for entry in path.iterdir() if entry.is_dir() and not entry.is_symlink()]
    runs = [RunDir(folder) for folder in sorted(folders) if RunDir(folder).config.is_file()]
    if not runs:
        raise UserError(
            f"{path}: neither a run directory (no config.yaml in it) nor a folder of runs; give"
            " run.dir/run.name of a training, or the folder of a sweep"
        )
    if len(runs) > MOST_RUNS:
        raise UserError(
            f"{path}: holds {len(runs):,} runs, more than the {MOST_RUNS} that one report takes;"
            " name those that you want to compare"
        )
    return runs


def labels_of(runs: Sequence[RunDir]) -> list[str]:
    """A name for each run: that of its folder, with as many parents as tell them apart."""
    parts = [run.path.resolve().parts for run in runs]
    labels = []
    for own in parts:
        length = 1
        while length < len(own) and [p[-length:] for p in parts].count(own[-length:]) > 1:
            length += 1
        labels.append("/".join(own[-length:]))
    return labels


# --- reading one ----------------------------------------------------------------------------------


def load_run(run: RunDir, label: str | None = None) -> LoadedRun:
    """Read the run; raises `UserError` where nothing was logged yet or run.json is damaged."""
    notes: list[str] = []
    config = _config_of(run, notes)
    if run.facts.is_file():
        facts = run.read_facts()
    else:
        facts = RunFacts(wandb_id="", dataset_fingerprint="")
        notes.append("There is no run.json: starts, restarts and rollbacks are not known.")
    rows = _Rows(_names(config))
    reader = run.read_metrics()
    judged: list[Finding] = []
    monitor = _monitor(config, facts)
    for row in reader:
        rows.add(row)
        if monitor is not None:
            judged += monitor.hear(row)
    if not rows.count:
        raise UserError(f"{run.metrics}: nothing was logged yet; train first")
    known = _known(config, facts, notes)
    if reader.broken:
        notes.append(f"{reader.broken:,} lines of metrics.jsonl are no rows and are left out.")
    if rows.foreign:
        notes.append(f"{rows.foreign:,} values of metrics.jsonl are no numbers and are left out.")
    if not rows.ordered:
        notes.append("Rows of metrics.jsonl are out of order: of each step the last one counts.")
    return LoadedRun(
        run=run,
        label=label or run.path.name or str(run.path),
        config=config,
        facts=facts,
        known=known,
        trained=rows.trained.table(),
        held_out=rows.held_out.table(),
        logged=tuple(rows.findings),
        judged=tuple(judged),
        broken=reader.broken,
        foreign=rows.foreign,
        notes=tuple(notes),
    )


def _config_of(run: RunDir, notes: list[str]) -> Config | None:
    try:
        return configuration.load(run.config)
    except ConfigError as error:
        notes.append(f"Its configuration cannot be read by this version: {error}")
        return None


def _monitor(config: Config | None, facts: RunFacts) -> Monitor | None:
    """The rules of health; None where they have no configuration to judge by."""
    if config is None:
        return None
    return Monitor(KnownToRules.of(config, facts), config.tracking.health_ignore)


def _names(config: Config | None) -> list[str]:
    """Every metric that a row may have: a foreign file cannot bring more columns."""
    found = [metric for metric in metrics.all_metrics() if metric != metrics.STEP]
    names = [metric.name for metric in found]
    names += [metric.name_held_out for metric in found if metric.held_out]
    if config is None:
        return names
    for source in (one.name for one in config.data.sources if one.name):
        names.append(metrics.EPOCH.name_of(source))
        names += [metric.name_held_out_of(source) for metric in found if metric.held_out]
    return names


def _known(config: Config | None, facts: RunFacts, notes: list[str]) -> Known:
    """From run.json; where an earlier version wrote it, from the shards if they are here."""
    about = facts.about
    if about is not None:
        return Known(
            parameters=about.parameters or None,
            vocab_size=about.vocab_size or None,
            tokenizer=about.tokenizer or None,
            corpus_tokens=about.corpus_tokens or None,
            unigram_entropy=about.unigram_entropy,
            promised_tokens_per_s=about.promised_tokens_per_s,
        )
    data = _data(config)
    if config is None or data is None:
        notes.append(
            "An earlier version made this run, and its shards are not here: parameters, corpus"
            " and FLOPs are not known."
        )
        return Known()
    return Known(
        parameters=plan.parameters(config, data.vocab_size).total,
        vocab_size=data.vocab_size,
        tokenizer=data.tokenizer_fingerprint,
        corpus_tokens=data.tokens,
        unigram_entropy=data.unigram_entropy(),
    )


def _data(config: Config | None) -> RunData | None:
    if config is None:
        return None
    try:
        return open_data(config)
    except DataError:
        return None


# --- rows -----------------------------------------------------------------------------------------


class _Growing:
    """A table while it is read."""

    def __init__(self, names: Iterable[str]) -> None:
        self._steps = array("d")
        self._columns = {name: array("d") for name in names}

    def add(self, step: float, values: dict[str, float]) -> None:
        self._steps.append(step)
        for name, column in self._columns.items():
            column.append(values.get(name, math.nan))

    def table(self) -> Table:
        """Ascending; of rows of the same step the last one."""
        steps = np.array(self._steps, np.float64)
        order = np.argsort(steps, kind="stable")
        ordered = steps[order]
        is_last = np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)]
        kept = order[is_last]
        columns = {name: np.array(one, np.float64)[kept] for name, one in self._columns.items()}
        used = {name: one for name, one in columns.items() if not np.isnan(one).all()}
        return Table(steps[kept], used)


class _Rows:
    """Sorts rows into those of training, of validations and of findings."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(names)
        held_out = {name for name in names if name.startswith(metrics.HELD_OUT)}
        self._of_held_out = held_out
        self._of_training = self._names - held_out
        self.held_out = _Growing(self._of_held_out)
        self.trained = _Growing(self._of_training)
        self.findings: list[Finding] = []
        self.count = 0
        self.foreign = 0
        self.ordered = True
        self._newest = -1

    def add(self, row: Row) -> None:
        step = row["step"]
        if step > _MOST_STEPS:
            self.foreign += 1
            return
        if is_event(row):
            finding = Finding.from_row(row)
            if finding is not None:
                self.findings.append(finding)
            return
        values = {name: self._number(row[name]) for name in row if name in self._names}
        if not values:
            return
        self.ordered = self.ordered and step >= self._newest
        self._newest = step
        self.count += 1
        for table, names in ((self.held_out, self._of_held_out), (self.trained, self._of_training)):
            own = {name: value for name, value in values.items() if name in names}
            if own:
                table.add(step, own)

    def _number(self, value: object) -> float:
        """NaN for what is undefined, and for what is no number, which is counted."""
        if value is None:
            return math.nan
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
            if math.isfinite(number):
                return number
            if math.isnan(number):
                return math.nan
        self.foreign += 1
        return math.nan
