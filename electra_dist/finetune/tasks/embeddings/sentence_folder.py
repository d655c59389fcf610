"""What the folder of a model for embeddings says of it: to our `predict` in the marker, and to
`sentence-transformers` in files of its own:

modules.json                       the steps: encoder, pooling, and length 1 where it is asked for
sentence_bert_config.json          the tokens of a text that are seen
1_Pooling/config.json              how the hidden states become one vector
2_Normalize/                       where the vectors have length 1; a file, for git keeps no folder
                                   without one
config_sentence_transformers.json  that vectors are compared by the cosine

The names of classes and keys are those that the package itself wrote before version 5, so that
older versions may read them too. The tests load such folders with the version that is pinned.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from electra_dist.files.writing import write_json
from electra_dist.finetune.labelled import Columns
from electra_dist.finetune.tasks.embeddings.pooling import Pooling

TASK = "embeddings"
_MODELS = "sentence_transformers.models"


def write_sentence_folder(folder: Path, pooling: Pooling, hidden: int, max_length: int) -> None:
    """Add these files to a folder of `transformers`, whose vectors have `hidden` numbers."""
    steps = ["Transformer", "Pooling"]
    if pooling.normalize:
        steps.append("Normalize")
    modules = []
    for number, step in enumerate(steps):
        path = ""
        if number:
            path = f"{number}_{step}"
            (folder / path).mkdir()
        modules.append(
            {"idx": number, "name": str(number), "path": path, "type": f"{_MODELS}.{step}"}
        )
    write_json(folder / "modules.json", modules)
    write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": max_length, "do_lower_case": False},
    )
    write_json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": hidden,
            "pooling_mode_cls_token": pooling.pool == "cls",
            "pooling_mode_mean_tokens": pooling.pool == "mean",
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
    )
    if pooling.normalize:
        write_json(folder / "2_Normalize" / "config.json", {})
    write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )


def embeddings_marker(pooling: Pooling, max_length: int, columns: Columns) -> dict[str, Any]:
    """What `predict` needs to know."""
    return {
        "task": TASK,
        **pooling.to_dict(),
        "max_length": max_length,
        "columns": {"text": columns.text, "pair": columns.pair, "label": columns.label},
    }
