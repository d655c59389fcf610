"""Rules on what the networks learn."""

from __future__ import annotations

from typing import NamedTuple

from electra_dist.config import Network
from electra_dist.health.known import Known
from electra_dist.health.numbers import Recent, entropy, number
from electra_dist.health.rule import Look, Rule
from electra_dist.runs import metrics
from electra_dist.runs.metrics_log import Row

# --- the discriminator learns nothing -------------------------------------------------------------

_CHANCE = 0.515
_BETTER = 0.53
_RARELY = 0.01


class _Collapse:
    def __init__(self, known: Known) -> None:
        self._known = known
        self._auc = Recent()
        self._recall = Recent()

    def look(self, row: Row) -> Look | None:
        auc = number(row, metrics.AUC.name)
        recall = number(row, metrics.RECALL.name)
        settled = int(row["step"]) >= self._known.settled
        if (
            auc is None
            or recall is None
            or not settled
            or "discriminator" not in self._known.trained
        ):
            return None
        middle_auc = self._auc.add(auc)
        middle_recall = self._recall.add(recall)
        if middle_auc is None or middle_recall is None:
            return None
        if middle_auc < _BETTER:
            sentence = (
                f"the discriminator tells nothing: AUC {middle_auc:.3f},"
                f" {_answers(row, middle_recall)}"
            )
        else:
            sentence = f"the discriminator's AUC is {middle_auc:.3f}"
        return Look(middle_auc < _CHANCE, middle_auc > _BETTER, sentence)


def _answers(row: Row, recall: float) -> str:
    """What a discriminator with this recall says, in words."""
    if recall < _RARELY:
        accuracy = number(row, metrics.ACCURACY.name)
        if accuracy is None:
            return "it calls every token original"
        return f"it calls every token original, which alone gives its accuracy of {accuracy:.3f}"
    if recall > 1 - _RARELY:
        return "it calls every token replaced"
    return f"its answers are chance, recall {recall:.2f}"


COLLAPSE = Rule(
    name="discriminator-collapse",
    severity="critical",
    needs=(metrics.AUC.name, metrics.RECALL.name),
    begins=f"AUC below {_CHANCE} after the warm-up",
    ends=f"AUC above {_BETTER}",
    advice=(
        "lower optim.lr, or lengthen optim.warmup_steps; make the generator smaller (a quarter to"
        " a half of the discriminator's width); look at optim/discriminator_grad_norm"
    ),
    source=(
        "0.5 is chance: trainings of this project that were made to collapse lie between 0.499 and"
        " 0.501, slow ones above 0.52, the quick start above 0.57; the recall of all of them is 0"
        " for a long time. A recall of 0 that a lower learning rate cured: ymcui/Chinese-ELECTRA"
        " issue 66"
    ),
    watch=_Collapse,
)

# --- the generator is too strong ------------------------------------------------------------------

_LITTLE = 0.05
_SOME = 0.08
_RIGHT = 0.5
_WRONG_AGAIN = 0.55
_HALF = 0.5
_MOST = 0.7
#: A best AUC that is less above chance than this says nothing when it falls.
_CLEAR = 0.08
_AUC_ROWS = 11


class _Detected(NamedTuple):
    """How well replaced tokens are told from original ones, as medians.

    auc    area under the curve
    gain   how far the loss lies below that of a constant guess, as a fraction of it
    share  of the masked tokens, those that were replaced
    """

    auc: float
    gain: float
    share: float


class _TooStrong:
    """The discriminator gains little over a constant guess, and the generator is the reason."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._auc = Recent(_AUC_ROWS)
        self._gain = Recent()
        self._share = Recent()
        self._best_auc = 0.5
        self._accuracy_then = 0.0

    def look(self, row: Row) -> Look | None:
        accuracy = number(row, metrics.GENERATOR_ACCURACY.name)
        if accuracy is None or not self._known.judges("discriminator", row):
            return None
        detected = self._detected(row)
        if detected is None:
            return None
        if detected.auc > self._best_auc:
            self._best_auc = detected.auc
            self._accuracy_then = accuracy
        return self._judge(detected, accuracy)

    def _detected(self, row: Row) -> _Detected | None:
        auc = number(row, metrics.AUC.name)
        loss = number(row, metrics.DISCRIMINATOR_LOSS.name)
        replaced = number(row, metrics.REPLACED_FRACTION.name)
        if replaced == 0:
            auc = 0.5  # nothing is replaced, and nothing can be told
        if auc is None or loss is None or replaced is None:
            return None
        constant = entropy(replaced)
        if constant == 0:
            gain = 0.0
        else:
            gain = 1 - loss / constant
        middle_auc = self._auc.add(auc)
        middle_gain = self._gain.add(gain)
        share = self._share.add(replaced / self._known.config.data.mask_fraction)
        if middle_auc is None or middle_gain is None or share is None:
            return None
        return _Detected(middle_auc, middle_gain, share)

    def _judge(self, now: _Detected, accuracy: float) -> Look:
        best = self._best_auc - 0.5
        left = (now.auc - 0.5) / max(best, _CLEAR)
        fell = best > _CLEAR and left < _HALF and accuracy > self._accuracy_then
        recovered = best <= _CLEAR or left > _MOST
        begins = now.gain < _LITTLE and (now.share < _RIGHT or fell)
        ends = now.gain > _SOME or (now.share > _WRONG_AGAIN and recovered)

        sentence = (
            f"the discriminator's loss is {now.gain:.1%} below that of a constant guess, and"
            f" {now.share:.0%} of the masked tokens are replaced"
        )
        if fell:
            sentence += f"; AUC fell from {self._best_auc:.3f} to {now.auc:.3f}"
        return Look(begins, ends, sentence)


TOO_STRONG = Rule(
    name="generator-too-strong",
    severity="warning",
    needs=(
        metrics.DISCRIMINATOR_LOSS.name,
        metrics.AUC.name,
        metrics.REPLACED_FRACTION.name,
        metrics.GENERATOR_ACCURACY.name,
    ),
    begins=(
        f"the discriminator's loss is less than {_LITTLE:.0%} below the entropy of the replaced"
        f" fraction, and either fewer than {_RIGHT:.0%} of the masked tokens are replaced, or AUC"
        f" (median of {_AUC_ROWS} rows) has lost half of its best distance to 0.5, which was more"
        f" than {_CLEAR:g}, while the generator's accuracy rose"
    ),
    ends=(
        f"the loss is more than {_SOME:.0%} below, or more than {_WRONG_AGAIN:.0%} of the masked"
        f" tokens are replaced and AUC has {_MOST:.0%} of its best distance again"
    ),
    advice=(
        "make the generator smaller (model.generator: a quarter to a half of the discriminator's"
        " width, or fewer layers), or lower optim.generator.lr; a larger data.mask_fraction makes"
        " its task harder"
    ),
    source=(
        "arXiv 2003.10555, section 3.2 and figure 3: generators of a quarter to a half are best;"
        " google-research/electra issues 37 (a generator that is good too early leaves the"
        " discriminator nothing to learn) and 49 (about 40% of the masked tokens are replaced at"
        " the end)"
    ),
    watch=_TooStrong,
)

# --- the generator learns nothing -----------------------------------------------------------------

_LEARNS = 0.985


class _NotLearning:
    """Its loss against what word frequencies alone give; else against where it began."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._loss = Recent()
        self._mark = known.unigram_entropy
        self._what = "the entropy of the word frequencies"

    def look(self, row: Row) -> Look | None:
        if "generator" not in self._known.trained:
            return None
        loss = number(row, metrics.GENERATOR_LOSS.name)
        if loss is None:
            loss_at_start = number(row, metrics.GENERATOR_LOSS.name_held_out)
        else:
            loss_at_start = loss
        if self._mark is None and loss_at_start is not None:
            self._mark = loss_at_start
            self._what = "where it began"
        if loss is None or self._mark is None or int(row["step"]) < self._known.settled:
            return None
        median = self._loss.add(loss)
        if median is None:
            return None
        sentence = (
            f"the generator's loss is {median:.3f} nats, no better than {self._what}"
            f" ({self._mark:.3f})"
        )
        if median < _LEARNS * self._mark:
            sentence = f"the generator's loss is {median:.3f} nats, below {self._mark:.3f} now"
        return Look(median >= self._mark, median < _LEARNS * self._mark, sentence)


NOT_LEARNING = Rule(
    name="generator-not-learning",
    severity="critical",
    needs=(metrics.GENERATOR_LOSS.name,),
    begins=(
        "after the warm-up its loss is not below the unigram entropy of the corpus, or its first"
        " loss where that entropy is not known"
    ),
    ends=f"its loss is below {_LEARNS:.1%} of that",
    advice=(
        "where the loss jumps or rises, lower optim.lr; where it stands still, raise"
        " optim.generator.lr (optim/generator_update_ratio is tiny then); see that the shards hold"
        " text: electra-dist data inspect"
    ),
    source=(
        "word frequencies alone give the unigram entropy; the quick start is 6% below it after"
        " 300 steps, a training with a dead generator stays 3% above. A generator that does not"
        " converge: huggingface/transformers pull request 4656"
    ),
    watch=_NotLearning,
)

# --- the text is learned by heart -----------------------------------------------------------------

_RISEN = 0.02
_BACK = 0.01
_VALIDATIONS = 3
_LOSSES: tuple[tuple[Network, metrics.Metric], ...] = (
    ("generator", metrics.GENERATOR_LOSS),
    ("discriminator", metrics.DISCRIMINATOR_LOSS),
)


class _HeldOut:
    """One network's held-out loss against its own best, and its training loss then and now."""

    def __init__(self, metric: metrics.Metric) -> None:
        self.metric = metric
        self._training = Recent()
        self._now: float | None = None
        self._then: float | None = None
        self._best: float | None = None
        self._risen = 0
        self._fallen = 0
        self.last: float | None = None

    def add(self, row: Row) -> bool:
        """Take in a row; whether a validation with a training loss before it was in it."""
        training = number(row, self.metric.name)
        if training is not None:
            self._now = self._training.add(training)
        self.last = number(row, self.metric.name_held_out)
        if self.last is None or self._now is None:
            return False
        if self._best is None or self._then is None or self.last < self._best:
            self._best = self.last
            self._then = self._now
        learned_by_heart = self.last > (1 + _RISEN) * self._best and self._now < self._then
        if learned_by_heart:
            self._risen += 1
        else:
            self._risen = 0
        if self.last < (1 + _BACK) * self._best or self._now >= self._then:
            self._fallen += 1
        else:
            self._fallen = 0
        return True

    @property
    def begins(self) -> bool:
        return self._risen >= _VALIDATIONS

    @property
    def ends(self) -> bool:
        return self._fallen >= _VALIDATIONS

    @property
    def sentence(self) -> str:
        return f"held-out {self.metric.name} is {self.last:.4f}, its best was {self._best:.4f}"


class _Overfitting:
    def __init__(self, known: Known) -> None:
        self._losses = [_HeldOut(metric) for network, metric in _LOSSES if network in known.trained]

    def look(self, row: Row) -> Look | None:
        heard = [loss for loss in self._losses if loss.add(row)]
        if not heard:
            return None
        rising = [loss for loss in heard if loss.begins]
        sentence = "; ".join(loss.sentence for loss in rising or heard)
        if rising:
            sentence += "; the training loss fell since then"
        return Look(bool(rising), all(loss.ends for loss in heard), sentence)


OVERFITTING = Rule(
    name="overfitting",
    severity="warning",
    needs=tuple(name for _, loss in _LOSSES for name in (loss.name, loss.name_held_out)),
    begins=(
        f"in {_VALIDATIONS} validations one after the other a held-out loss is more than"
        f" {_RISEN:.0%} above its best while the same training loss is lower than it was then"
    ),
    ends=(
        f"in {_VALIDATIONS} validations it is within {_BACK:.0%} of its best, or the training"
        " loss is no lower than it was then"
    ),
    advice=(
        "train on more text or for fewer epochs (data/epoch); use the checkpoint with the best"
        " held-out loss; set model.dropout=0.1 for many epochs over little text"
    ),
    source=(
        "the definition of overfitting; google-research/electra issue 15: a corpus large enough"
        " shows none"
    ),
    watch=_Overfitting,
)

RULES = (COLLAPSE, TOO_STRONG, NOT_LEARNING, OVERFITTING)
