"""The check of an export: `transformers` loads it, and its logits are those of our own network.

Comes in: the folder of an export, both of our networks with the checkpoint's fp32 weights, and
documents of token ids. Goes out: what was compared, or `UserError` with the first thing that
differs. Documents come from the held-out split where the shards are reachable, otherwise from a
text that is kept here; the report says which.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from torch import Tensor

from electra_dist.batch import SpecialTokens
from electra_dist.config import Config, Network
from electra_dist.data.shards.manifest import TRAIN, VALIDATION
from electra_dist.data.shards.reading import BlockReader
from electra_dist.data.sources import open_data
from electra_dist.errors import DataError, UserError
from electra_dist.files.tokenizers import TOKENIZER_FILE, special_tokens_of
from electra_dist.model.discriminator import Discriminator
from electra_dist.model.generator import Generator
from electra_dist.model.inputs import rows_of_documents, to_device

#: Logits may differ by this much, times the largest logit where
#: that is above 1 (fp32 rounds relatively).
TOLERANCE = 1e-5
#: Documents compared, and tokens of each at most.
DOCUMENTS = 8
LONGEST = 256

SAMPLE_TEXTS = (
    "The generator proposes plausible words, and the discriminator decides which of them were"
    " replaced.",
    "A lighthouse keeper wrote down the weather every evening for forty years; nobody read the"
    " notebooks until the lamp was automated and a historian opened the box in 1987.",
    "Unlike a literal [MASK] in a text, a masked token is chosen by the training code.",
    "def area(radius): return 3.14159 * radius ** 2",
    "Zürich, naïve, 東京 and 42 % of 1,024.",
)


@dataclass(frozen=True)
class CheckTexts:
    """Where the check's documents come from, and their ids without special tokens (empty:
    take `SAMPLE_TEXTS`).
    """

    source: str
    documents: tuple[tuple[int, ...], ...]
    longest: int


@dataclass(frozen=True)
class Compared:
    """What the check compared: logits of `auto_class` over `tokens` real
    tokens in `rows` rows, padding beside them.
    """

    auto_class: str
    source: str
    rows: int
    tokens: int
    logits: int
    max_difference: float
    largest_logit: float
    tolerance: float

    def sentence(self) -> str:
        """One line for the terminal and the model card."""
        return (
            f"{self.logits:,} logits of transformers.{self.auto_class} on {self.rows} rows,"
            f" {self.tokens} tokens of {self.source}: largest difference {self.max_difference:.1e}"
            f" (allowed {self.tolerance:.1e}, largest logit {self.largest_logit:.1f})"
        )


def check_texts(config: Config, positions: int) -> CheckTexts:
    """Held-out documents of the run's shards, or the sample texts with the reason why; none longer
    than `positions` tokens.
    """
    longest = min(LONGEST, positions)
    folders = ", ".join(config.data.folders)
    try:
        data = open_data(config)
        manifest = next((one for one in data.manifests if one.split(VALIDATION).blocks), data.first)
        if manifest.split(VALIDATION).blocks:
            split = VALIDATION
        else:
            split = TRAIN
        block = BlockReader(manifest, split).read(0)
    except DataError:
        return CheckTexts(f"sample text ({folders} cannot be read here)", (), longest)
    except IndexError:
        return CheckTexts(f"sample text ({folders} holds no documents)", (), longest)
    ends = np.cumsum(block.lengths)[:-1]
    documents = np.split(block.tokens.astype(np.int64), ends)[:DOCUMENTS]
    if split == VALIDATION:
        where = "held-out documents"
    else:
        where = "training documents"
    return CheckTexts(where, tuple(tuple(document.tolist()) for document in documents), longest)


def check_export(
    folder: Path,
    network: Network,
    auto_class: str,
    generator: Generator,
    discriminator: Discriminator,
    texts: CheckTexts,
    tokenizer: Path,
) -> Compared:
    """Load `folder` offline with `auto_class` of transformers and compare it with our networks, and
    its tokenizer with that of the run in the folder `tokenizer`; raises `UserError` on a
    difference.
    """
    specials = special_tokens_of(tokenizer)
    own = tokenizer / TOKENIZER_FILE
    documents = tuple(map(tuple, _check_tokenizer(folder, network, own, specials)))
    if texts.documents:
        documents = texts.documents
    rows = [
        [[specials.cls, *document[: texts.longest - 2], specials.sep]] for document in documents
    ]
    packed = rows_of_documents(rows, max(len(row[0]) for row in rows), specials.pad)
    batch = to_device(packed, "cpu")
    real = batch.documents >= 0
    model = _load(folder, auto_class)
    with torch.inference_mode():
        if network == "generator":
            ours = generator.logits(batch)
        else:
            shared = generator.exchange(batch.tokens, batch.positions)
            ours = discriminator(
                shared, batch, batch.tokens, torch.zeros(batch.tokens.shape)
            ).logits
        theirs: Tensor = model(input_ids=batch.tokens, attention_mask=real.long()).logits
    if ours.shape != theirs.shape:
        raise _different(
            folder, f"logits of shape {tuple(theirs.shape)}, ours have {tuple(ours.shape)}"
        )
    difference = float((ours - theirs)[real].abs().max())
    largest = float(ours[real].abs().max())
    tolerance = TOLERANCE * max(1.0, largest)
    if not difference <= tolerance:  # also when it is NaN
        raise _different(
            folder, f"logits differ from ours by {difference:.2e}, allowed {tolerance:.1e}"
        )
    return Compared(
        auto_class,
        texts.source,
        len(rows),
        int(real.sum()),
        ours[real].numel(),
        difference,
        largest,
        tolerance,
    )


def _different(folder: Path, what: str) -> UserError:
    return UserError(
        f"export check failed: the model in {folder} has {what}; nothing was exported, please"
        " report this"
    )


def _check_tokenizer(
    folder: Path, network: Network, tokenizer: Path, specials: SpecialTokens
) -> list[list[int]]:
    """Ids of the sample texts without special tokens; raises when AutoTokenizer gives others than
    the run's own `tokenizer`, or wraps a text otherwise than pre-training did.
    """
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ours = tokenizers.Tokenizer.from_file(str(tokenizer))
    ours.encode_special_tokens = network == "discriminator"
    for text in SAMPLE_TEXTS:
        inside = ours.encode(text, add_special_tokens=False).ids
        if theirs(text)["input_ids"] != [specials.cls, *inside, specials.sep]:
            raise _different(
                folder,
                f"an AutoTokenizer that gives other ids than {tokenizer} for {text!r}",
            )
    return [ours.encode(text, add_special_tokens=False).ids for text in SAMPLE_TEXTS]


def _load(folder: Path, auto_class: str) -> Any:
    import transformers

    transformers.utils.logging.disable_progress_bar()
    model, report = getattr(transformers, auto_class).from_pretrained(
        folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report.get(kind):
            raise _different(
                folder, f"{kind.replace('_', ' ')} for {auto_class}: {sorted(report[kind])[:5]}"
            )
    return model.eval()
