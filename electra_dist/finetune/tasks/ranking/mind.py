"""News and what readers clicked, in the format of MIND (Wu et al., ACL 2020; msnews.github.io).

    news.tsv         id, category, subcategory, title, and what is not used here, apart by tabs
    behaviors.tsv    id of the impression, user, time, history: ids of news apart by spaces, and the
                     impressions: N1-1 was clicked, N2-0 was not; N3 in a file without labels

Neither has a header. A line of behaviors.tsv becomes a query: the titles of the history, the newest
first, so that the oldest are cut where there are too many tokens. Its candidates are the titles
of the impressions.
"""

from __future__ import annotations

from pathlib import Path

from electra_dist.errors import DataError
from electra_dist.files.reading import MIB, open_regular

NEWS = "news.tsv"
BEHAVIORS = "behaviors.tsv"
#: Clicks of a reader that the query has at most, as the models published for MIND take.
MOST_CLICKS = 50
_BETWEEN = "; "
_LONGEST_LINE = 16 * MIB
_GRADES = {"0": 0, "1": 1}

#: Name, text, candidates, grades: the fields of a `Query`.
Fields = tuple[str, str, tuple[str, ...], tuple[int, ...] | None]


class MindParser:
    """Lines of behaviors.tsv with the titles of the news.tsv of the same folder."""

    def __init__(self, folder: Path) -> None:
        self._news = folder / NEWS
        self._titles = read_titles(self._news)

    def parse(self, place: str, line: str) -> Fields:
        """Raises `DataError`, which begins with `place`."""
        parts = line.split("\t")
        if len(parts) != 5:
            raise DataError(
                f"{place}: {len(parts)} fields; expected 5 apart by tabs: impression, user, time,"
                " history, impressions"
            )
        (name, _, _, history, impressions) = parts
        if not impressions.strip():
            raise DataError(f"{place}: has no impressions; expected such as N1-1 N2-0")
        clicked = history.split()[-MOST_CLICKS:]
        titles = [self._title(place, news) for news in reversed(clicked)]
        shown = [_impression(place, item) for item in impressions.split()]
        candidates = tuple(self._title(place, news) for news, _ in shown)
        grades = tuple(grade for _, grade in shown if grade is not None)
        if not grades:
            return name, _BETWEEN.join(titles), candidates, None
        if len(grades) < len(shown):
            raise DataError(
                f"{place}: {len(shown) - len(grades)} of {len(shown)} impressions have no label;"
                " expected all of them, or none, to end in -0 or -1"
            )
        return name, _BETWEEN.join(titles), candidates, grades

    def _title(self, place: str, news: str) -> str:
        title = self._titles.get(news)
        if title is None:
            raise DataError(f"{place}: news {news!r} is not in {self._news}; add its line there")
        return title


def read_titles(path: Path) -> dict[str, str]:
    """The title of each id of news.tsv; raises `DataError` naming file and line."""
    titles: dict[str, str] = {}
    try:
        with open_regular(path, follow=True) as file:
            number = 0
            while line := file.readline(_LONGEST_LINE):
                number += 1
                parts = line.decode("utf-8-sig").rstrip("\r\n").split("\t")
                if len(parts) < 4 or not parts[0]:
                    raise DataError(
                        f"{path}, line {number}: {len(parts)} fields; expected 4 or more apart by"
                        " tabs: id, category, subcategory, title"
                    )
                if titles.setdefault(parts[0], parts[3]) != parts[3]:
                    raise DataError(
                        f"{path}, line {number}: news {parts[0]!r} has another title before"
                    )
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, line {number}: is not UTF-8: convert it first") from error
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}; it lies in one folder with {BEHAVIORS}"
        ) from error
    return titles


def _impression(place: str, item: str) -> tuple[str, int | None]:
    """The id and whether it was clicked, None where that is not said."""
    (news, dash, label) = item.rpartition("-")
    if not dash:
        return item, None
    if label not in _GRADES or not news:
        raise DataError(
            f"{place}: impression {item!r}; expected the id of news with -1 (clicked) or -0"
        )
    return news, _GRADES[label]
