"""Filters of documents: each a module with its parameters, their defaults and the source of these.

Comes in: a document. Goes out: whether it is kept, and what of it. Nothing here reads or writes
files. `catalog` has all filters in the order of their work.
"""

__all__ = ["catalog", "document", "kinds"]
