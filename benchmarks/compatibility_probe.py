"""What one version of `transformers` makes of model folders: ids, outputs, answers of pipelines.

    python compatibility_probe.py FOLDER OUT.npz

`FOLDER` holds a folder for each case of `CASES`, and one for each of `TOKENIZERS`. Runs with
whatever `transformers` is found first, so it imports nothing of this project. Each case that fails
leaves its error instead.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

#: Class of transformers for each folder.
CASES = {
    "discriminator": "AutoModelForPreTraining",
    "generator": "AutoModelForMaskedLM",
    "classification": "AutoModelForSequenceClassification",
    "question-answering": "AutoModelForQuestionAnswering",
}
#: Folders that hold a tokenizer alone, of the kinds that the models above do not have.
TOKENIZERS = ("unigram", "white-space", "words")
TEXTS = (
    "The generator proposes plausible words, and the discriminator decides which were replaced.",
    "def area(radius): return 3.14159 * radius ** 2",
    "Zürich, naïve, 東京 and 42 % of 1,024.",
    " two  spaces ",
)
#: What a text that spells a special token is read as: text, but by a generator.
WRITTEN = "A literal [MASK] in a text."
#: A pipeline for each folder that has one in all versions, and what it is asked.
PIPELINES = {
    "generator": ("fill-mask", "The [MASK] of the value."),
    "classification": ("text-classification", "This class is bright."),
}


def ids_of(tokenizer: Any) -> dict[str, Any]:
    """Of a padded batch, and of a text that spells a special token."""
    return {
        "ids": tokenizer(list(TEXTS), padding=True, return_tensors="np")["input_ids"],
        "written": np.array(tokenizer(WRITTEN)["input_ids"]),
    }


def outputs_of(folder: Path, auto_class: str) -> dict[str, Any]:
    """The outputs for a padded batch, where they are not padding."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = getattr(transformers, auto_class).from_pretrained(folder).eval()
    encoded = tokenizer(list(TEXTS), padding=True, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**encoded)
    found = {}
    real = encoded["attention_mask"].bool()
    for name, value in outputs.items():
        if value.shape[:2] == real.shape:
            value = value[real]
        found[name] = value.numpy()
    return found


def answer_of(folder: Path, task: str, asked: str) -> dict[str, Any]:
    """The best answer of a pipeline, a token or a class."""
    pipeline = transformers.pipeline(task, model=str(folder), tokenizer=str(folder))
    best = pipeline(asked)[0]
    return {"pipeline": np.array(best.get("token_str", best.get("label")))}


def main() -> None:
    (folder, out) = sys.argv[1:]
    results: dict[str, Any] = {"version": np.array(transformers.__version__)}
    for case in (*CASES, *TOKENIZERS):
        try:
            found = ids_of(transformers.AutoTokenizer.from_pretrained(Path(folder, case)))
            if case in CASES:
                found |= outputs_of(Path(folder, case), CASES[case])
            if case in PIPELINES:
                found |= answer_of(Path(folder, case), *PIPELINES[case])
        except Exception as error:  # whatever this version meets
            found = {"error": np.array(f"{type(error).__name__}: {error}"[:200])}
        results |= {f"{case}/{name}": value for name, value in found.items()}
    np.savez(out, **results)


if __name__ == "__main__":
    main()
