"""run.json, typed: who a run is, and what was done to it.

Comes in: the content of the file, of this or another release. Goes out: `RunFacts`, frozen; each
change makes a new one, which `RunDir.update_facts` writes. Keys that this software does not know
stay in the file, at the top and inside the entries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, NamedTuple

import pydantic

from electra_dist.runs.rollbacks import Rollback


class Version(NamedTuple):
    """One package that a start computed with."""

    package: str
    number: str


@dataclass(frozen=True)
class Start:
    """One start that trained.

    time      UTC
    host      of rank 0
    nodes     machines of its ranks
    device    what computed, as its maker names it
    job_id    of Slurm; empty outside
    revision  git commit of the software, `-dirty` behind it where files were changed; empty
              where it is not a checkout
    step      that it went on from
    software  what computed; in the file each package is a key of its own
    """

    world_size: int
    time: str = ""
    host: str = ""
    nodes: int = 0
    device: str = ""
    job_id: str = ""
    revision: str = ""
    step: int = 0
    software: tuple[Version, ...] = ()


@dataclass(frozen=True)
class About:
    """What a reader of the run wants to know, without its data and without torch.

    parameters              of both networks, those that they share counted once
    generator_parameters    with the embeddings
    discriminator_parameters  without them
    vocab_size              entries of the tokenizer
    tokenizer               fingerprint of its file: losses of two runs compare where it is the same
    corpus_tokens           of the training split
    unigram_entropy         of the corpus, nats; None where it is not known
    promised_tokens_per_s   what `plan` gives for the last start's device; None where it knows none
    """

    parameters: int = 0
    generator_parameters: int = 0
    discriminator_parameters: int = 0
    vocab_size: int = 0
    tokenizer: str = ""
    corpus_tokens: int = 0
    unigram_entropy: float | None = None
    promised_tokens_per_s: float | None = None


@dataclass(frozen=True)
class KeyChange:
    """A key of the configuration that another value replaced: `step` is the last that had `old`."""

    step: int
    key: str
    new: Any
    old: Any = None
    time: str = ""


@dataclass(frozen=True)
class WentBack:
    """A return to an older checkpoint that somebody asked for; begun, and `done` or not yet."""

    from_step: Annotated[int, pydantic.Field(alias="from")]
    to_step: Annotated[int, pydantic.Field(alias="to")]
    time: str = ""
    done: bool = False


@dataclass(frozen=True)
class Origin:
    """The checkpoint that a branch started from: of the run `name`, at `step`.

    run       its path then
    wandb_id  its W&B run
    """

    name: str
    step: int
    run: str = ""
    wandb_id: str = ""
    time: str = ""


@dataclass(frozen=True)
class Saving:
    """What the run remembers of its saving (`electra_dist.runs.checkpoints.memory`).

    step        of the newest checkpoint written; None before the first one
    time        when that was, Unix time
    problem     why the newest try failed; None when it did not
    problem_step, failures   step of that try, and failed tries since the last good one
    """

    step: int | None = None
    time: float | None = None
    problem: str | None = None
    problem_step: int | None = None
    failures: int = 0


@dataclass(frozen=True)
class RunFacts:
    """The content of run.json; `name` is that of the run when it was new.

    starts         one for each start that trained, oldest first, like all lists here
    changes        keys that were changed while the run went on
    rollbacks      what the guard went back from, and which rows were skipped
    went_back      returns that somebody asked for
    branched_from  None where the run began at step 0
    saving         None where the file has none, or one that cannot be understood
    about          None where an earlier version made the run
    as_read        the file's own content, for the keys that are not known here
    """

    wandb_id: str
    dataset_fingerprint: str
    name: str = ""
    starts: tuple[Start, ...] = ()
    changes: tuple[KeyChange, ...] = ()
    rollbacks: tuple[Rollback, ...] = ()
    went_back: tuple[WentBack, ...] = ()
    branched_from: Origin | None = None
    saving: Saving | None = None
    about: About | None = None
    as_read: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    # --- reading and writing ----------------------------------------------------------------------

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> RunFacts:
        """Raises `ValueError` that names the first key which is missing or holds something else."""
        known = {name: content[name] for name in _NAMES if name in content}
        if "starts" in known:
            known["starts"] = _starts_of(known["starts"])
        if not _is_saving(known.get("saving")):
            del known["saving"]
        try:
            facts = _FACTS.validate_python(known)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"{where}: {first['msg']}") from error
        return replace(facts, as_read=content)

    def to_json(self) -> dict[str, Any]:
        """The inverse; what is empty is written where the file has it, and `starts` always."""
        written = _FACTS.dump_python(self, mode="json", by_alias=True, exclude={"as_read"})
        written["starts"] = [_of_start(start) for start in written["starts"]]
        wanted = {
            name: value
            for name, value in written.items()
            if value not in (None, []) or (name in self.as_read and name != "saving")
        }
        merged = _over(self.as_read, {"starts": [], **wanted})
        assert isinstance(merged, dict)
        return merged

    # --- changing ---------------------------------------------------------------------------------

    def with_start(self, start: Start, step: int) -> RunFacts:
        """One start more, which goes on from `step`.

        A run that goes on from there has no steps after it: changes that were noted for later hold
        from there.
        """
        settled = tuple(replace(one, step=min(one.step, step)) for one in self.changes)
        return replace(self, starts=(*self.starts, start), changes=settled)

    def with_changes(self, changes: Sequence[KeyChange]) -> RunFacts:
        """These changes more."""
        return replace(self, changes=(*self.changes, *changes))

    def with_return(self, begun: WentBack) -> RunFacts:
        """One return more."""
        return replace(self, went_back=(*self.went_back, begun))

    def with_return_done(self) -> RunFacts:
        """The newest return is done."""
        *earlier, last = self.went_back
        return replace(self, went_back=(*earlier, replace(last, done=True)))

    def with_rollback(self, rollback: Rollback) -> RunFacts:
        """One rollback more."""
        return replace(self, rollbacks=(*self.rollbacks, rollback))

    def with_about(self, about: About) -> RunFacts:
        """What a reader wants to know, as it is now."""
        return replace(self, about=about)

    def with_saving(self, saving: Saving) -> RunFacts:
        """Another memory of saving."""
        return replace(self, saving=saving)


_FACTS = pydantic.TypeAdapter(RunFacts)
_SAVING = pydantic.TypeAdapter(Saving)
_NAMES = tuple(one.name for one in fields(RunFacts) if one.name != "as_read")
_OF_START = tuple(one.name for one in fields(Start) if one.name != "software")
#: What the entry of a start has in any version.
_ALWAYS = ("world_size", "time", "host")


def _starts_of(entries: object) -> object:
    """The list `starts` of the file, with the packages of each start under one name."""
    if not isinstance(entries, list):
        return entries
    return [_start_of(entry) for entry in entries]


def _start_of(entry: object) -> object:
    if not isinstance(entry, dict):
        return entry
    known = {name: entry[name] for name in _OF_START if name in entry}
    packages = [
        (name, value)
        for name, value in entry.items()
        if name not in _OF_START and isinstance(value, str)
    ]
    return known | {"software": packages}


def _of_start(start: dict[str, Any]) -> dict[str, Any]:
    """The entry of a start in the file: without what is not known, each package a key."""
    known = {name: start[name] for name in _OF_START if start[name] or name in _ALWAYS}
    return known | dict(start["software"])


def _is_saving(content: object) -> bool:
    """Whether it can be understood; what a bystander wrote never makes the file unreadable."""
    if content is None:
        return True
    try:
        _SAVING.validate_python(content)
    except pydantic.ValidationError:
        return False
    return True


def _over(read: object, written: object) -> object:
    """`written`, with the keys of `read` that it does not have.

    Entries of lists belong together by their place: a run adds entries at the end and changes them
    where they stand.
    """
    if isinstance(written, dict):
        old = read if isinstance(read, Mapping) else {}
        return {**old, **{name: _over(old.get(name), value) for name, value in written.items()}}
    if isinstance(written, list):
        before = read if isinstance(read, list) else []
        padded = [*before, *([None] * len(written))]
        return [_over(one, other) for one, other in zip(padded, written, strict=False)]
    return written
