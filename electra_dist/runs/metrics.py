"""The metrics of a run: the one place where a logged number has its name, its unit and its meaning.

Comes in: the registered objectives, which have the numbers of their own. Goes out: `all_metrics`,
from which the rows of `metrics.jsonl`, the lines on the terminal, reports, W&B and the table in
docs/metrics.md take names, digits and words (`docs/make_metrics.py` writes the table). A new number
is added here, or to its objective, and computed where its sums are (`electra_dist.train.window`) or
where a row is made (`electra_dist.train.logbook`).
"""

from __future__ import annotations

from electra_dist.objectives import HELD_OUT as HELD_OUT
from electra_dist.objectives import Metric as Metric
from electra_dist.objectives import Metrics as Metrics
from electra_dist.objectives import masked_tokens, objectives, replaced_tokens
from electra_dist.runs.heldout.evaluations import HEADLINES

STEP = Metric(
    "step",
    "steps",
    "optimizer steps done",
    "d",
    formula="steps since the start of the run, skipped ones included",
    healthy="grows to `train.steps`",
)
GENERATOR_LOSS = masked_tokens.LOSS
DISCRIMINATOR_LOSS = replaced_tokens.LOSS
GENERATOR_ACCURACY = masked_tokens.ACCURACY
GENERATOR_TOP5 = masked_tokens.TOP5
GENERATOR_PERPLEXITY = masked_tokens.PERPLEXITY
PRECISION = replaced_tokens.PRECISION
RECALL = replaced_tokens.RECALL
F1 = replaced_tokens.F1
ACCURACY = replaced_tokens.ACCURACY
AUC = replaced_tokens.AUC
BRIER = replaced_tokens.BRIER
CALIBRATION_ERROR = replaced_tokens.CALIBRATION_ERROR
REPLACED_FRACTION = replaced_tokens.REPLACED_FRACTION

# --- the optimizers -------------------------------------------------------------------------------

_ADAMW = "Loshchilov and Hutter 2019, arXiv 1711.05101"
_CLIPPING = "Pascanu et al. 2013, arXiv 1211.5063, section 3.2"
_SCALING = "Micikevicius et al. 2018, arXiv 1710.03740, section 3.2"

LEARNING_RATE = Metric(
    "optim/lr",
    "",
    "learning rate of the last step, of the common `optim.lr`",
    ".1e",
    formula="`optim.lr` * factor of the schedule",
    healthy="rises to `optim.lr` in the warm-up, then falls",
    source="Clark et al. 2020, arXiv 2003.10555, appendix A",
)
GENERATOR_LR = Metric(
    "optim/generator_lr",
    "",
    "the generator's own learning rate of the last step",
    ".1e",
    formula="`optim.generator.lr`, or `optim.lr` * factor of the schedule",
    healthy="as `optim/lr`",
)
DISCRIMINATOR_LR = Metric(
    "optim/discriminator_lr",
    "",
    "the same of the discriminator",
    ".1e",
    formula="`optim.discriminator.lr`, or `optim.lr` * factor of the schedule",
    healthy="as `optim/lr`",
)
GENERATOR_NORM = Metric(
    "optim/generator_grad_norm",
    "",
    "norm of the generator's gradient in the last step, before clipping",
    formula="2-norm of the gradient over all ranks and micro-batches, without the loss scale",
    healthy="falls in the first steps, then changes slowly; not undefined twice in a row",
    source=_CLIPPING,
)
DISCRIMINATOR_NORM = Metric(
    "optim/discriminator_grad_norm",
    "",
    "the same of the discriminator",
    formula="as `optim/generator_grad_norm`",
    healthy="as `optim/generator_grad_norm`",
    source=_CLIPPING,
)
GENERATOR_UPDATE_RATIO = Metric(
    "optim/generator_update_ratio",
    "",
    "how far the last step moved the generator's weights, against their size",
    ".1e",
    formula="2-norm of the weights' change in the last step / 2-norm of the weights after it; 0 for"
    " a skipped step",
    healthy="1e-4 to 1e-2 at the full learning rate; follows it",
    source=f"the change is that of AdamW, {_ADAMW}, algorithm 2",
)
DISCRIMINATOR_UPDATE_RATIO = Metric(
    "optim/discriminator_update_ratio",
    "",
    "the same of the discriminator",
    ".1e",
    formula="as `optim/generator_update_ratio`",
    healthy="as `optim/generator_update_ratio`",
    source=_ADAMW,
)
GENERATOR_CLIP_RATE = Metric(
    "optim/generator_clip_rate",
    "fraction",
    "of the steps since the last logged one, those whose generator gradient was scaled down",
    ".0%",
    formula="steps with a norm above `optim.clip_norm` (`optim.clip_mode: joint`: that of both"
    " networks together) / steps",
    healthy="any, if it is steady: small models are healthy with every step clipped",
    source=_CLIPPING,
)
DISCRIMINATOR_CLIP_RATE = Metric(
    "optim/discriminator_clip_rate",
    "fraction",
    "the same of the discriminator",
    ".0%",
    formula="as `optim/generator_clip_rate`",
    healthy="as `optim/generator_clip_rate`",
    source=_CLIPPING,
)
GENERATOR_LOSS_SCALE = Metric(
    "optim/generator_loss_scale",
    "",
    "what the generator's loss is multiplied with in fp16; undefined otherwise",
    ",.0f",
    formula="the scale of the next step",
    healthy="settles after the first overflows; does not fall to 1",
    source=_SCALING,
)
DISCRIMINATOR_LOSS_SCALE = Metric(
    "optim/discriminator_loss_scale",
    "",
    "the same of the discriminator",
    ",.0f",
    formula="as `optim/generator_loss_scale`",
    healthy="as `optim/generator_loss_scale`",
    source=_SCALING,
)
SKIPPED_STEPS = Metric(
    "optim/skipped_steps",
    "steps",
    "skipped for overflow since the last logged step",
    "d",
    formula="steps whose gradient was not finite in either network",
    healthy="0 in bf16 and fp32; in fp16 a few while the loss scale settles",
    source=_SCALING,
)

# --- speed ----------------------------------------------------------------------------------------

_PART = "mean over the steps since the last logged one, on rank 0, without communication"

TOKENS_PER_SECOND = Metric(
    "speed/real_tokens_per_s",
    "tokens/s",
    "tokens that are no padding, all ranks together",
    ",.0f",
    best="max",
    formula="real tokens since the last logged step / seconds of training since then",
    healthy="steady after the first row; near what `electra-dist bench` measures here",
    of_clock=True,
)
MFU = Metric(
    "speed/mfu",
    "fraction",
    "model FLOPs utilisation ([what is counted](metrics.md#model-flops))",
    ".0%",
    best="max",
    formula="FLOPs that the model needs per second / FLOPs per second of a large matrix product",
    healthy="steady; what `electra-dist plan` promises for this cluster",
    source="Chowdhery et al. 2022, arXiv 2204.02311, appendix B",
    of_clock=True,
)
STEP_SECONDS = Metric(
    "speed/step_seconds",
    "seconds",
    "a step, without validation and saving",
    best="min",
    formula="seconds of training since the last logged step / steps",
    healthy="steady after the first row",
    of_clock=True,
)
DATA_WAIT_SECONDS = Metric(
    "speed/data_wait_seconds",
    "seconds",
    "of a step, waiting for the data",
    ".4f",
    formula="time in which rank 0 had nothing to train on / steps",
    healthy="below 5% of `speed/step_seconds`",
    of_clock=True,
)
GENERATOR_FORWARD_SECONDS = Metric(
    "speed/generator_forward_seconds",
    "seconds",
    "of a step, in the generator's forward: loss and samples included",
    ".4f",
    formula=_PART,
    healthy="steady",
    of_clock=True,
)
GENERATOR_BACKWARD_SECONDS = Metric(
    "speed/generator_backward_seconds",
    "seconds",
    "of a step, in the generator's backward",
    ".4f",
    formula=_PART,
    healthy="about twice its forward",
    of_clock=True,
)
DISCRIMINATOR_FORWARD_SECONDS = Metric(
    "speed/discriminator_forward_seconds",
    "seconds",
    "of a step, in the discriminator's forward",
    ".4f",
    formula=_PART,
    healthy="steady",
    of_clock=True,
)
DISCRIMINATOR_BACKWARD_SECONDS = Metric(
    "speed/discriminator_backward_seconds",
    "seconds",
    "of a step, in the discriminator's backward",
    ".4f",
    formula=_PART,
    healthy="about twice its forward",
    of_clock=True,
)
COMMUNICATION_SECONDS = Metric(
    "speed/communication_seconds",
    "seconds",
    "of a step, in gathers and reductions that no work hides",
    ".4f",
    formula="time in which rank 0 waited for collectives of the step / steps",
    healthy="small next to forward and backward; grows where a rank is slow",
    of_clock=True,
)
OPTIMIZER_SECONDS = Metric(
    "speed/optimizer_seconds",
    "seconds",
    "of a step, in norms, clipping and AdamW of both networks",
    ".4f",
    formula=_PART,
    healthy="a few percent of `speed/step_seconds` with many micro-batches per step",
    of_clock=True,
)
CHECKPOINT_STALL = Metric(
    "speed/checkpoint_stall",
    "fraction",
    "of the time since the last logged step, spent waiting for a checkpoint"
    " ([saving](checkpoints.md#saving-in-the-background))",
    formula="seconds in the saver / all seconds since the last logged step",
    healthy="below 0.01",
    of_clock=True,
)
SLOWEST_RANK = Metric(
    "speed/slowest_rank",
    "rank",
    "the rank whose own work takes longest",
    "d",
    formula="argmax over the ranks of data wait + forward + backward + optimizer",
    healthy="changes from row to row; one that stays has a slow device or a slow disk",
    of_clock=True,
)
RANK_SPREAD = Metric(
    "speed/rank_spread",
    "",
    "how much longer the slowest rank's own work takes than that of most",
    ".2f",
    formula="own step time of the slowest rank / median of all ranks",
    healthy="below 1.1",
    of_clock=True,
)
WALL_CLOCK = Metric(
    "speed/wall_clock",
    "seconds",
    "Unix time at which the row was made, in whole seconds",
    "d",
    formula="clock of rank 0",
    healthy="grows by the seconds of the steps between; more where training stood still",
    of_clock=True,
)

# --- memory and data ------------------------------------------------------------------------------

PEAK_BYTES = Metric(
    "memory/peak_bytes",
    "bytes",
    "most memory that a rank has held so far: of the device, on a CPU of the process",
    ",d",
    formula="maximum over the ranks; CUDA: what PyTorch has allocated, CPU: the resident set",
    healthy="no more growth after the first rows and the first checkpoint",
    of_clock=True,
)
PADDING = Metric(
    "data/padding",
    "fraction",
    "of the positions of a row, those that hold no token",
    ".1%",
    formula="1 - real tokens / (rows * row length)",
    healthy="below 0.05 with packed rows",
)
EPOCH = Metric(
    "data/epoch",
    "epochs",
    "passes over the training split",
    ".2f",
    formula="tokens consumed / tokens of the split",
    healthy="below 40; beyond a few passes new text helps more",
    source="Muennighoff et al. 2023, arXiv 2305.16264",
)
REAL_TOKENS = Metric(
    "data/real_tokens",
    "tokens",
    "trained on since the start of the run",
    ",d",
    formula="sum of the real tokens of all steps up to this one",
    healthy="grows evenly",
)

_OF_THE_RUN = (
    LEARNING_RATE,
    GENERATOR_LR,
    DISCRIMINATOR_LR,
    GENERATOR_NORM,
    DISCRIMINATOR_NORM,
    GENERATOR_UPDATE_RATIO,
    DISCRIMINATOR_UPDATE_RATIO,
    GENERATOR_CLIP_RATE,
    DISCRIMINATOR_CLIP_RATE,
    GENERATOR_LOSS_SCALE,
    DISCRIMINATOR_LOSS_SCALE,
    SKIPPED_STEPS,
    TOKENS_PER_SECOND,
    MFU,
    STEP_SECONDS,
    DATA_WAIT_SECONDS,
    GENERATOR_FORWARD_SECONDS,
    GENERATOR_BACKWARD_SECONDS,
    DISCRIMINATOR_FORWARD_SECONDS,
    DISCRIMINATOR_BACKWARD_SECONDS,
    COMMUNICATION_SECONDS,
    OPTIMIZER_SECONDS,
    CHECKPOINT_STALL,
    SLOWEST_RANK,
    RANK_SPREAD,
    WALL_CLOCK,
    PEAK_BYTES,
    PADDING,
    EPOCH,
    REAL_TOKENS,
)


def all_metrics() -> tuple[Metric, ...]:
    """Every logged number, in the order of a row: losses, scores, those of the run, and those
    of a full evaluation.
    """
    losses = [objective.loss for objective in objectives()]
    scores = [metric for objective in objectives() for metric in objective.metrics]
    return (STEP, *losses, *scores, *_OF_THE_RUN, *HEADLINES.values())
