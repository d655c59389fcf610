"""Model sizes by name: what `model.preset` stands for.

`small`, `base` and `large` are the published ELECTRA sizes, generator included
(google-research/electra, `configure_pretraining.py`); `tiny` is for laptops and tests, `xl` is
about 1.3 B parameters at the same proportions as `large`. A preset gives defaults: any key set
beside it wins.
"""

from __future__ import annotations

from typing import Any


def _network(layers: int, hidden_size: int, heads: int, ffn_size: int) -> dict[str, int]:
    return {"layers": layers, "hidden_size": hidden_size, "heads": heads, "ffn_size": ffn_size}


#: Entries of the vocabulary that ELECTRA was published with.
ELECTRA_VOCABULARY = 30_522

#: Preset name -> values below the keys `model` and `data`.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "tiny": {
        "model": {
            "embedding_size": 128,
            "discriminator": _network(3, 128, 2, 512),
            "generator": _network(3, 64, 1, 256),
        },
        "data": {"mask_fraction": 0.15},
    },
    "small": {
        "model": {
            "embedding_size": 128,
            "discriminator": _network(12, 256, 4, 1024),
            "generator": _network(12, 64, 1, 256),
        },
        "data": {"mask_fraction": 0.15},
    },
    "base": {
        "model": {
            "embedding_size": 768,
            "discriminator": _network(12, 768, 12, 3072),
            "generator": _network(12, 256, 4, 1024),
        },
        "data": {"mask_fraction": 0.15},
    },
    "large": {
        "model": {
            "embedding_size": 1024,
            "discriminator": _network(24, 1024, 16, 4096),
            "generator": _network(24, 256, 4, 1024),
        },
        "data": {"mask_fraction": 0.25},
    },
    "xl": {
        "model": {
            "embedding_size": 2048,
            "discriminator": _network(24, 2048, 32, 8192),
            "generator": _network(24, 512, 8, 2048),
        },
        "data": {"mask_fraction": 0.25},
    },
}
