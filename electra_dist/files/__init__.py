"""Files: read with a bound, written whole or not at all.

Comes in: paths, of files that others may have written too. Goes out: their content, or one error
that names the file. Nothing here knows what a file means, but for `tokenizers`, whose folders are
copied from place to place.
"""

__all__ = [
    "checksums",
    "pictures",
    "reading",
    "shipped",
    "staging",
    "tokenizers",
    "urls",
    "writing",
]
