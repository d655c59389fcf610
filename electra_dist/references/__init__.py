"""Reference curves: what the losses and scores of known recipes look like, seed by seed, and the
band that a new run of the same recipe stays in.

Comes in: JSON files of this folder, or one of a user's own. Goes out: `Reference`s, frozen, and the
`Band` of each metric. `benchmarks/reference_curves.py` writes the files. Needs no torch.
"""

from electra_dist.references.band import Band, Limits
from electra_dist.references.matching import matching, telling_keys
from electra_dist.references.reading import all_references, load_reference
from electra_dist.references.reference import Curve, Reference

__all__ = [
    "Band",
    "Curve",
    "Limits",
    "Reference",
    "all_references",
    "load_reference",
    "matching",
    "telling_keys",
]
