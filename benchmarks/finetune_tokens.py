"""Token classification against a plain `transformers` Trainer at the same settings.

    python benchmarks/address_labels.py --out addresses
    python benchmarks/finetune_tokens.py --model runs/quickstart/export/discriminator \
        --train addresses/train.conll --dev addresses/dev.conll --seeds 5 --json tokens.json

The peer is what the documentation of `transformers` shows: `AutoModelForTokenClassification`, words
tokenized with `is_split_into_words`, the label on the first piece, `Trainer` with its own optimizer
and schedule, and scores by `seqeval` (its default mode) from what the model says. Both have the
same learning rate at every layer, batch, warm-up, weight decay, epochs, length, device and seeds,
and both are scored after each epoch. `electra-dist` once more with its own decay of the learning
rate from layer to layer.

Prints the median of the held-out F1 over the seeds, the lowest and the highest, the seconds per
seed and their ratio to the peer's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from electra_dist.finetune.run import Settings, finetune
from electra_dist.measure.bench import device_name


@dataclass(frozen=True)
class Row:
    """Held-out F1 of each seed, and the seconds per seed."""

    what: str
    f1: list[float]
    seconds: float


def read_columns(path: Path) -> list[tuple[list[str], list[str]]]:
    """Words (first column) and labels (last) of each sentence, apart by white space."""
    found: list[tuple[list[str], list[str]]] = [([], [])]
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = line.split()
        if cells:
            found[-1][0].append(cells[0])
            found[-1][1].append(cells[-1])
        else:
            found.append(([], []))
    return [sentence for sentence in found if sentence[0]]


def encoded(
    sentences: list[tuple[list[str], list[str]]],
    tokenizer: Any,
    ids: dict[str, int],
    max_length: int,
) -> list[dict[str, Any]]:
    """Examples with the label of each word at its first piece."""
    words = [one[0] for one in sentences]
    found = tokenizer(words, is_split_into_words=True, truncation=True, max_length=max_length)
    examples = []
    for row, (_, labels) in enumerate(sentences):
        own = []
        last = None
        for word in found.word_ids(row):
            if word is None or word == last:
                own.append(-100)
            else:
                own.append(ids.get(labels[word], -100))
            last = word
        examples.append({"input_ids": found["input_ids"][row], "labels": own})
    return examples


def peer(options: argparse.Namespace) -> Row:
    """The plain Trainer."""
    import transformers
    from seqeval import metrics

    train = read_columns(options.train)
    dev = read_columns(options.dev)
    names = sorted({label for _, labels in train for label in labels})
    ids = {name: index for index, name in enumerate(names)}
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    train_set = encoded(train, tokenizer, ids, options.max_length)
    dev_set = encoded(dev, tokenizer, ids, options.max_length)

    def scores(prediction: Any) -> dict[str, float]:
        best = prediction.predictions.argmax(axis=-1)
        kept = prediction.label_ids != -100
        said = [[names[label] for label in row[own]] for row, own in zip(best, kept, strict=True)]
        return {"f1": float(metrics.f1_score([labels for _, labels in dev], said))}

    f1 = []
    started = time.perf_counter()
    for seed in options.seeds:
        transformers.set_seed(seed)
        model = transformers.AutoModelForTokenClassification.from_pretrained(
            options.model, num_labels=len(names), id2label=dict(enumerate(names)), label2id=ids
        )
        steps = round(-(-len(train_set) // options.batch) * options.epochs)
        with tempfile.TemporaryDirectory() as folder:
            trainer = transformers.Trainer(
                model=model,
                args=transformers.TrainingArguments(
                    output_dir=folder,
                    use_cpu=options.device == "cpu",
                    learning_rate=options.lr,
                    num_train_epochs=options.epochs,
                    per_device_train_batch_size=options.batch,
                    per_device_eval_batch_size=options.batch,
                    warmup_steps=round(0.1 * steps),
                    weight_decay=0.01,
                    seed=seed,
                    eval_strategy="epoch",
                    save_strategy="no",
                    report_to=[],
                    disable_tqdm=True,
                ),
                data_collator=transformers.DataCollatorForTokenClassification(tokenizer),
                train_dataset=train_set,
                eval_dataset=dev_set,
                compute_metrics=scores,
            )
            trainer.train()
        evaluated = [entry["eval_f1"] for entry in trainer.state.log_history if "eval_f1" in entry]
        f1.append(evaluated[-1])
    return Row("transformers Trainer", f1, (time.perf_counter() - started) / len(options.seeds))


def ours(what: str, options: argparse.Namespace, decay: float) -> Row:
    """`electra-dist finetune`."""
    recipe = {
        "lr": options.lr,
        "layer_decay": decay,
        "batch": options.batch,
        "epochs": options.epochs,
        "max_length": options.max_length,
    }
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        report = finetune(
            Settings(
                model=options.model,
                train=options.train,
                dev=options.dev,
                out=Path(folder) / "out",
                task="token-classification",
                recipe=recipe,
                seeds=tuple(options.seeds),
                device=options.device,
            )
        )
    seconds = (time.perf_counter() - started) / len(options.seeds)
    return Row(what, [scores["f1"] for scores in report.seeds.values()], seconds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, required=True, help="folder written by `electra-dist export`"
    )
    parser.add_argument("--train", type=Path, required=True, help=".conll, labels in IOB2")
    parser.add_argument("--dev", type=Path, required=True, help="the same, held out")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.seeds = list(range(1, options.seeds + 1))
    rows = [
        peer(options),
        ours("electra-dist, layer decay 1", options, decay=1.0),
        ours("electra-dist, layer decay 0.8", options, decay=0.8),
    ]
    print(f"\n{device_name(torch.device(options.device))}, {len(options.seeds)} seeds")
    print(
        f"{'F1 of entities, held out':32}{'median':>8}{'min':>8}{'max':>8}{'s/seed':>8}{'ratio':>8}"
    )
    for row in rows:
        print(
            f"{row.what:32}{statistics.median(row.f1):8.4f}{min(row.f1):8.4f}{max(row.f1):8.4f}"
            f"{row.seconds:8.1f}{row.seconds / rows[0].seconds:8.2f}"
        )
    if options.json:
        content = [{"what": row.what, "f1": row.f1, "seconds": row.seconds} for row in rows]
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
