"""What the vectors of an encoder find, by layer, before and after contrastive tuning, next to
TF-IDF.

    python benchmarks/embeddings.py --model exported/discriminator --squad xquad.en.json \
        --train train.tsv --dev dev.tsv --json embeddings.json

Two jobs. Retrieval: the right paragraph for a question, among all paragraphs of the held-out
articles, a quarter of them (any file of SQuAD's format; XQuAD's English part is
https://github.com/google-deepmind/xquad). Neighbours: the label of a text is that of most of its
15 nearest training texts by the cosine (any labelled tables; benchmarks/finetune.py names the
source of SST-2).

The layer is chosen on pairs of the training articles, never on the held-out ones. Tuned is this
layer, and the whole encoder, over the same seeds with one recipe; nothing of it is chosen on the
held-out articles. TF-IDF counts words, each text once, with scikit-learn's defaults but for words
of one letter, which count too.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from electra_dist.embeddings.layers import LayerChoice, choose_layer
from electra_dist.embeddings.run import Settings as EmbedSettings
from electra_dist.embeddings.run import embed
from electra_dist.finetune.labelled import Columns, read_examples
from electra_dist.finetune.model_folder import ModelFolder
from electra_dist.finetune.run import Settings, finetune
from electra_dist.finetune.tasks.embeddings.pairs import read_pairs
from electra_dist.finetune.tasks.embeddings.pooling import Pooling
from electra_dist.measure.bench import device_name
from electra_dist.parallel.hardware import device_of_command

_PAIRS = Columns(pair="pair")
_NEIGHBOURS = 15
Row = dict[str, Any]


def write_pairs(squad: Path, folder: Path) -> tuple[Path, Path]:
    """Question and paragraph of the training and of the held-out articles, as JSON lines."""
    articles = json.loads(squad.read_text(encoding="utf-8"))["data"]
    random.Random(0).shuffle(articles)
    cut = len(articles) * 3 // 4
    files = []
    for name, part in (("train", articles[:cut]), ("dev", articles[cut:])):
        lines = [
            json.dumps({"text": question["question"].strip(), "pair": paragraph["context"]})
            for article in part
            for paragraph in article["paragraphs"]
            for question in paragraph["qas"]
        ]
        files.append(folder / f"{name}.jsonl")
        files[-1].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return files[0], files[1]


def retrieval(options: argparse.Namespace, folder: Path) -> list[Row]:
    """The scores of every layer, of the tuned models, and of TF-IDF."""
    train, dev = write_pairs(options.squad, folder)
    chosen = layers(options, train)
    held_out = layers(options, dev)
    rows = []
    for layer, scores in enumerate(held_out.scores):
        mark = ", chosen on the training pairs" if layer == chosen.layer else ""
        rows.append({"what": f"layer {layer}{mark}", "scores": scores})
    last = len(held_out.scores) - 1
    for layer in sorted({chosen.layer, last}):
        start = folder / f"layer-{layer}"
        embed(EmbedSettings(options.model, out_model=start, layer=layer, device=options.device))
        report = finetune(
            Settings(
                model=start,
                train=train,
                dev=dev,
                out=folder / f"tuned-{layer}",
                task="embeddings",
                recipe={"lr": options.lr, "layer_decay": 1.0, "epochs": options.epochs},
                seeds=tuple(range(1, options.seeds + 1)),
                device=options.device,
            )
        )
        mrr = [scores["mrr"] for scores in report.seeds.values()]
        what = f"layer {layer} tuned, median of {options.seeds} seeds"
        span = f"{min(mrr):.3f} to {max(mrr):.3f}"
        rows.append({"what": what, "scores": report.median, "span": span})
    rows.append({"what": "TF-IDF", "scores": held_out.simple})
    return rows


def layers(options: argparse.Namespace, pairs: Path) -> LayerChoice:
    """The scores of every layer on a file of pairs."""
    folder = ModelFolder.open(options.model)
    longest = int(folder.config["max_position_embeddings"])
    device = device_of_command(options.device)
    return choose_layer(
        folder, folder.tokenizer(), read_pairs(pairs, _PAIRS), Pooling(), longest, device
    )


def neighbours(options: argparse.Namespace, folder: Path) -> list[Row]:
    """Accuracy of the nearest training texts, by layer and by TF-IDF."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    known, held_out = (
        read_examples(path, Columns(), "refuse") for path in (options.train, options.dev)
    )
    labels = [example.label for example in known], [example.label for example in held_out]
    count = int(ModelFolder.open(options.model).config["num_hidden_layers"])
    rows = []
    for layer in range(count + 1):
        vectors = []
        for name, path in (("train", options.train), ("dev", options.dev)):
            out = folder / f"{name}-{layer}.npy"
            embed(EmbedSettings(options.model, path, out, layer=layer, device=options.device))
            vectors.append(np.load(out))
        rows.append({"what": f"layer {layer}", "accuracy": by_neighbours(vectors, labels)})
    counts = TfidfVectorizer(token_pattern=r"(?u)\w+")  # noqa: S106
    vectors = [
        counts.fit_transform([example.text for example in known]),
        counts.transform([example.text for example in held_out]),
    ]
    rows.append({"what": "TF-IDF", "accuracy": by_neighbours(vectors, labels)})
    most = statistics.mode(labels[0])
    right = float(np.mean([label == most for label in labels[1]]))
    rows.append({"what": "most frequent class", "accuracy": right})
    return rows


def by_neighbours(vectors: list[Any], labels: tuple[list[Any], list[Any]]) -> float:
    """Held-out accuracy of the vote of the nearest training texts."""
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier(_NEIGHBOURS, metric="cosine", algorithm="brute")
    model.fit(vectors[0], labels[0])
    return float(model.score(vectors[1], labels[1]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, required=True, help="folder written by `electra-dist export`"
    )
    parser.add_argument("--squad", type=Path, required=True, help="SQuAD's format")
    parser.add_argument("--train", type=Path, required=True, help="labelled texts")
    parser.add_argument("--dev", type=Path, required=True, help="the same, held out")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        near = neighbours(options, Path(scratch))
        found = retrieval(options, Path(scratch))
    print(f"\n{device_name(device_of_command(options.device))}")
    print(f"{'retrieval, held out':48}{'mrr':>8}{'recall@1':>10}{'recall@10':>11}")
    for row in found:
        scores = row["scores"]
        print(
            f"{row['what']:48}{scores['mrr']:8.3f}{scores['recall_at_1']:10.3f}"
            f"{scores['recall_at_10']:11.3f}  {row.get('span', '')}"
        )
    print(f"\n{'neighbours, held out':48}{'accuracy':>8}")
    for row in near:
        print(f"{row['what']:48}{row['accuracy']:8.3f}")
    if options.json:
        content = {"retrieval": found, "neighbours": near, "seeds": options.seeds}
        options.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
