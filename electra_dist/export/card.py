"""The model card of an export: what the model is, how it was trained,
how to load it. Facts of the run only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from electra_dist.architectures import find_architecture
from electra_dist.config import Config, Network
from electra_dist.export import compatibility
from electra_dist.export.report import ExportReport
from electra_dist.runs import metrics
from electra_dist.runs.directory import RunDir
from electra_dist.runs.facts import RunFacts
from electra_dist.runs.metrics_log import Row

_ADVICE: dict[Network, str] = {
    "generator": "For fine-tuning take the discriminator.",
    "discriminator": "This is the network to fine-tune.",
}
#: Metrics of the machine and of the optimizer.
_NOT_SHOWN = ("speed/", "optim/", "memory/")
_USE: dict[Network, str] = {
    "discriminator": """\
from transformers import {auto_class}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{path}")
model = {auto_class}.from_pretrained("{path}")
inputs = tokenizer("The chef ate the meal.", return_tensors="pt")
logits = model(**inputs).logits  # above 0: replaced
""",
    "generator": """\
from transformers import {auto_class}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{path}")
model = {auto_class}.from_pretrained("{path}")
inputs = tokenizer("The chef {mask} the meal.", return_tensors="pt")
at = (inputs["input_ids"][0] == tokenizer.mask_token_id).nonzero()[0, 0]
best = tokenizer.decode(model(**inputs).logits[0, at].argmax())
""",
}


def model_card(
    run: RunDir,
    config: Config,
    facts: RunFacts,
    report: ExportReport,
    tokenizer: Mapping[str, Any],
    mask: str,
) -> str:
    """The card as Markdown with the front matter of the Hugging Face hub."""
    network = report.network
    step = report.step
    compared = report.check
    dropout = find_architecture(config.model.architecture).names().FINE_TUNING_DROPOUT
    tags = "\n".join(f"- {tag}" for tag in ("electra", "replaced-token-detection", "electra-dist"))
    pipeline = ""
    job = "tells which tokens of a text were replaced"
    if network == "generator":
        pipeline = "pipeline_tag: fill-mask\n"
        job = "fills masked tokens"
    return f"""---
library_name: transformers
{pipeline}tags:
{tags}
---

# {config.run.name}: ELECTRA {network}, step {step}

The {network} of an ELECTRA pre-training run: it {job}. {report.parameters:,} parameters.
{_ADVICE[network]}

```python
{_USE[network].format(auto_class=compared.auto_class, path="path/to/this/folder", mask=mask)}```

{compatibility.sentence(str(tokenizer.get("kind")))}

## Architecture

{_table(_architecture(config, network, report.positions))}

## Tokenizer

{_table(_tokenizer(tokenizer, network)) or "Nothing is recorded (shards of an earlier version)."}

## Training

{_table(_training(config, facts, step))}

## Metrics

{_metrics(run, step)}

## Check of this export

{compared.sentence()}.

`config.json` sets dropout {dropout}, with which ELECTRA is fine-tuned; it acts only in
training.
"""


def _table(rows: dict[str, str]) -> str:
    if not rows:
        return ""
    return "| | |\n|---|---|\n" + "\n".join(
        f"| {name} | {_cell(value)} |" for name, value in rows.items()
    )


def _cell(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")


def _architecture(config: Config, network: Network, positions: int) -> dict[str, str]:
    sizes = config.network(network)
    model = config.model
    numbers = (sizes.layers, sizes.hidden_size, sizes.heads, sizes.ffn_size)
    return {
        "layers / hidden / heads / feed-forward": " / ".join(map(str, numbers)),
        "embedding size": str(model.embedding_size),
        "positions": _positions(config, positions),
        "embedding sharing in pre-training": model.embedding_sharing,
    }


def _positions(config: Config, positions: int) -> str:
    """How many an export has, and whether training has seen them."""
    trained = config.data.row_length
    if positions > trained:
        return f"{positions}, of which the first {trained} were trained"
    network = config.model.max_positions
    if positions == network:
        return f"{positions}, all trained"
    return f"{positions}, all trained (the network in training has {network})"


def _tokenizer(card: Mapping[str, Any], network: Network) -> dict[str, str]:
    """What the tokenizer does to a text, from its card."""
    if not card:
        return {}
    rows = {"kind": str(card.get("kind"))}
    if "normalize" in card:
        white_space = "a run becomes one space"
        if card.get("keep_whitespace"):
            white_space = "kept"
        elif card.get("kind") == "words":
            white_space = "stands between symbols"
        rows |= {
            "Unicode normal form": str(card["normalize"]),
            "case": "folded" if card.get("lowercase") else "kept",
            "white space": white_space,
        }
    changes = card.get("changes")
    if isinstance(changes, list) and changes:
        rows["changed for pre-training"] = "; ".join(map(str, changes))
    if network == "generator":
        rows["special tokens in a text"] = "the mask is a mask, as filling needs it"
    else:
        rows["special tokens in a text"] = str(card.get("written_out"))
    return rows


def _training(config: Config, facts: RunFacts, step: int) -> dict[str, str]:
    ranks = "no start is recorded"
    software: dict[str, str] = {}
    if facts.starts:
        last = facts.starts[-1]
        software = dict(last.software)
        ranks = f"{len(facts.starts)}, the last on {last.world_size} processes"
    optim = config.optim
    train = config.train
    versions = [
        f"{name} {software[name]}"
        for name in ("python", "electra-dist", "torch", "deepspeed")
        if name in software
    ]
    return {
        "steps": f"{step} of {train.steps}",
        "rows a step": f"{train.global_rows} x {config.data.row_length} tokens",
        "tokens, padding included": f"{step * train.global_rows * config.data.row_length:,}",
        "dataset fingerprint": f"`{facts.dataset_fingerprint}`",
        "mask fraction": str(config.data.mask_fraction),
        "learning rate": f"{optim.lr}, {optim.schedule}, {optim.warmup_steps} warm-up steps",
        "discriminator loss weight": str(train.discriminator_weight),
        "dropout / attention dropout": f"{config.model.dropout} / {config.model.attention_dropout}",
        "precision": config.precision.mode,
        "seed": str(train.seed),
        "starts of the run": ranks,
        "software": ", ".join(versions) or "unknown",
    }


def _metrics(run: RunDir, step: int) -> str:
    """The newest training row and the newest held-out row up to `step`, each of one step alone."""
    loss = metrics.GENERATOR_LOSS
    parts = []
    for title, key in (("Training", loss.name), ("Held out", loss.name_held_out)):
        rows = [row for row in run.read_metrics() if row["step"] <= step and key in row]
        if rows:
            shown = _shown(rows[-1], held_out=key == loss.name_held_out)
            parts.append(f"{title}, step {rows[-1]['step']}:\n\n{_table(shown)}")
    return "\n\n".join(parts) or "None were logged."


def _shown(row: Row, held_out: bool) -> dict[str, str]:
    """The numbers of a row that say what the model can do, and not how fast it was trained."""
    values: dict[str, str] = {}
    for name, value in sorted(row.items()):
        if name == metrics.STEP.name or name.startswith(_NOT_SHOWN):
            continue
        if name.startswith(metrics.HELD_OUT) != held_out:
            continue
        if isinstance(value, float):
            values[name] = f"{value:.4f}"
        elif isinstance(value, int):
            values[name] = f"{value:,}"
    return values
