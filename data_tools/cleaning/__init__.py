"""Cleaning a corpus: every filter over every document, in parallel and in bounded memory.

Comes in: input files and filters. Goes out: a folder of `.jsonl` files with the documents that are
left, and a report of what each filter dropped. `run` has the steps.
"""

__all__ = ["picture", "report", "run"]
