"""A folder of shards: its manifest, its files, and the reading of any block in it, checked before
anybody sees a token.

Comes in: a folder that somebody wrote. Goes out: a `Manifest`, and blocks of documents.
"""

__all__ = [
    "blocks",
    "facts",
    "files",
    "indexes",
    "manifest",
    "publishing",
    "reading",
    "scanning",
    "stores",
    "tables",
]
