"""What pre-training buys: a fine-tuned discriminator against the same network untrained, and
against word counts.

    python benchmarks/finetune.py --model runs/quickstart/export/discriminator --train train.tsv
    --dev dev.tsv \
        --seeds 3 --json finetune.json

Every encoder is fine-tuned with the same recipe at every learning rate given, over the same seeds;
the held-out score is that after the last epoch. The linear peer is logistic regression on TF-IDF of
words and word pairs (scikit-learn's defaults otherwise). `simple` is the most frequent class.

Any labelled tables will do. Those of docs/fine-tune.md are the whole sentences of the Stanford
Sentiment Treebank (https://nlp.stanford.edu/sentiment/) without the neutral ones, in the columns
`text` and `label`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from electra_dist.finetune.labelled import Columns, read_examples
from electra_dist.finetune.model_folder import ModelFolder
from electra_dist.finetune.run import Settings, finetune
from electra_dist.measure.bench import device_name


def untrained(model: Path, out: Path) -> Path:
    """A copy of the folder with random weights, as `transformers` initialises them."""
    import transformers

    shutil.copytree(model, out)
    torch.manual_seed(0)
    config = transformers.ElectraConfig.from_pretrained(model)
    transformers.ElectraForPreTraining(config).save_pretrained(out)
    return out


def word_counts(train: Path, dev: Path, columns: Columns) -> float:
    """Accuracy of logistic regression on TF-IDF of words and pairs of words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    known, held_out = (read_examples(path, columns, "refuse") for path in (train, dev))
    pipeline = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=1000))
    pipeline.fit([e.text for e in known], [e.label for e in known])
    return float(pipeline.score([e.text for e in held_out], [e.label for e in held_out]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, required=True, help="folder written by `electra-dist export`"
    )
    parser.add_argument("--train", type=Path, required=True, help="labelled, as for `finetune`")
    parser.add_argument("--dev", type=Path, required=True, help="the same, held out")
    parser.add_argument("--text", default="text")
    parser.add_argument("--label", default="label")
    parser.add_argument("--lr", type=float, nargs="+", default=[1e-4, 1e-3])
    parser.add_argument("--layer-decay", type=float, default=0.8)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    names: dict[str, str | None] = {"text": options.text, "label": options.label}
    rows = []
    parameters = json.loads((ModelFolder.open(options.model).path / "config.json").read_text())
    with tempfile.TemporaryDirectory() as scratch:
        encoders = {
            "pre-trained": options.model,
            "untrained": untrained(options.model, Path(scratch) / "untrained"),
        }
        for name, folder in encoders.items():
            for lr in options.lr:
                recipe = {
                    "lr": lr,
                    "layer_decay": options.layer_decay,
                    "epochs": options.epochs,
                    "max_length": options.max_length,
                }
                settings = Settings(
                    model=folder,
                    train=options.train,
                    dev=options.dev,
                    out=Path(scratch) / f"{name}-{lr}",
                    columns=names,
                    recipe=recipe,
                    seeds=tuple(range(1, options.seeds + 1)),
                    device=options.device,
                )
                report = finetune(settings)
                scores = [one["accuracy"] for one in report.seeds.values()]
                rows.append(
                    row(f"{name}, lr {lr:g}", report.median["accuracy"], min(scores), max(scores))
                )
        simple = report.simple["accuracy"]
    linear = word_counts(options.train, options.dev, Columns(options.text, None, options.label))
    rows += [
        row("TF-IDF, logistic regression", linear, linear, linear),
        row("most frequent class", *[simple] * 3),
    ]
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    print(
        f"\n{device_name(device)}, {parameters['num_hidden_layers']} layers of"
        f" {parameters['hidden_size']}"
    )
    print(f"{'accuracy, held out':32}{'median':>8}{'min':>8}{'max':>8}")
    for one in rows:
        print(f"{one['what']:32}{one['median']:8.3f}{one['min']:8.3f}{one['max']:8.3f}")
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "seeds": options.seeds}, indent=2) + "\n")


def row(what: str, median: float, low: float, high: float) -> dict[str, Any]:
    return {"what": what, "median": median, "min": low, "max": high}


if __name__ == "__main__":
    main()
