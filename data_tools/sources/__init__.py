"""Inputs of every format: what is found in them, cut into parts for workers, read as documents.

1. find     `find_inputs`: files, folders, globs, standard input and URLs become a list of files,
            and an `InputReport` of what is read and what is left out.
2. cut      `split_parts`: large files are cut, small ones are put together.
3. read     `read_pieces` gives the documents of a part in pieces of bounded size; `read_documents`
            gives them whole.
4. look     `look_at` reads a little of the parts, and warns where documents look wrong.

Together the parts have every document once, however they were cut. All text is UTF-8.
"""

from data_tools.sources.finding import CLEAN_REPORT, find_inputs
from data_tools.sources.looking import Look, look_at
from data_tools.sources.reading import read_documents, read_pieces
from data_tools.sources.report import InputReport, describe
from data_tools.sources.splitting import split_parts, suitable_part_bytes
from data_tools.sources.types import DOCUMENTS, InputFile, Inputs, Part, Piece, ReadOptions, Slice

__all__ = [
    "CLEAN_REPORT",
    "DOCUMENTS",
    "InputFile",
    "InputReport",
    "Inputs",
    "Look",
    "Part",
    "Piece",
    "ReadOptions",
    "Slice",
    "describe",
    "find_inputs",
    "look_at",
    "read_documents",
    "read_pieces",
    "split_parts",
    "suitable_part_bytes",
]
