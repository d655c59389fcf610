"""What rules know of a run besides its rows.

Comes in: the configuration and the facts of a run, of any version. Goes out: `Known`, the few
numbers that thresholds depend on; None where the run does not tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from electra_dist.config import NETWORKS, Config, Network, lr_factor
from electra_dist.references import Band, matching
from electra_dist.runs import metrics
from electra_dist.runs.facts import RunFacts
from electra_dist.runs.metrics_log import Row

#: No verdict on what is learned before this step, however short the warm-up is.
_FIRST_VERDICT = 200
#: Nor before this share of the run is behind the warm-up.
_SHARE = 0.05


@dataclass(frozen=True)
class Known:
    """What a run says of itself.

    config                  as it was resolved
    settled                 the step from which its learning is judged
    trained                 networks whose loss has a weight
    starts                  steps that its starts went on from, oldest first
    unigram_entropy         of the corpus, nats
    promised_tokens_per_s   what `plan` gives for the device
    reference               name of the matching reference
    bands                   of the losses of that reference, by metric
    band_every              steps that its values are means of
    """

    config: Config
    settled: int
    trained: tuple[Network, ...]
    starts: tuple[int, ...] = ()
    unigram_entropy: float | None = None
    promised_tokens_per_s: float | None = None
    reference: str | None = None
    bands: Mapping[str, Band] = field(default_factory=dict)
    band_every: int = 1

    @classmethod
    def of(cls, config: Config, facts: RunFacts | None) -> Known:
        """What `config` and `facts` tell; None is a run without a readable run.json."""
        warmup = config.optim.warmup_steps
        settled = max(_FIRST_VERDICT, 2 * warmup, warmup + round(_SHARE * config.train.steps))
        weights = {
            "generator": config.train.generator_weight,
            "discriminator": config.train.discriminator_weight,
        }
        trained = tuple(network for network in NETWORKS if weights[network] > 0)
        if facts is None:
            return cls(config, settled, trained)
        starts = tuple(start.step for start in facts.starts)
        reference = matching(config, facts)
        bands = {}
        if reference is not None:
            losses = (metrics.GENERATOR_LOSS.name, metrics.DISCRIMINATOR_LOSS.name)
            found = {name: reference.band(name) for name in losses}
            bands = {name: band for name, band in found.items() if band is not None}
        about = facts.about
        return cls(
            config,
            settled,
            trained,
            starts,
            about.unigram_entropy if about else None,
            about.promised_tokens_per_s if about else None,
            reference.name if reference else None,
            bands,
            reference.every if reference else 1,
        )

    def judges(self, network: Network, row: Row) -> bool:
        """Whether `network` is trained, and for long enough, to judge what it learns."""
        return network in self.trained and int(row["step"]) >= self.settled

    def start_of(self, step: int) -> int:
        """Which start trained `step`: its place in `starts`, -1 where none is known."""
        for place in reversed(range(len(self.starts))):
            if self.starts[place] < step:
                return place
        return -1

    def lr_share(self, network: Network, step: int) -> float:
        """Fraction of the peak learning rate of `network` in the step before `step`."""
        optim = self.config.optimizer(network)
        return lr_factor(max(step - 1, 0), self.config.train.steps, optim)
