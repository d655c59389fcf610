"""Draw the rooms of the house and who imports whom, from the code, into docs/rooms.svg and the
table of docs/extend.md.

    python docs/make_rooms.py            writes both
    python docs/make_rooms.py --check    exit status 1 where the table says something else

A room is a package with all that lies in it, or a module of the hall `electra_dist`. It stands on
the floor above the highest room that it imports. In the picture an arrow that others imply is left
out: the top room imports much, but through the rooms between.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

from made import write_or_check

ROOT = Path(__file__).resolve().parents[1]
PICTURE = Path(__file__).with_name("rooms.svg")
PAGE = Path(__file__).with_name("extend.md")
PACKAGES = ("electra_dist", "data_tools", "launcher")
_BEGIN = "<!-- rooms: written by docs/make_rooms.py -->\n"
_END = "<!-- rooms: end -->\n"

Graph = dict[str, set[str]]


def room_of(path: Path) -> str:
    """The room of a file, by a name without `electra_dist.`"""
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] != "electra_dist":
        return parts[0]
    return parts[1]


def imported(path: Path) -> set[str]:
    """Full names that a file imports of this project, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in PACKAGES}


def read_graph() -> Graph:
    """Room -> the rooms that it imports."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    files = [path for path in files if path != ROOT / "electra_dist" / "__init__.py"]
    rooms = {room_of(path) for path in files}
    graph: Graph = {room: set() for room in sorted(rooms)}
    for path in files:
        for name in imported(path):
            parts = name.split(".")
            target = parts[0]
            if target == "electra_dist":
                target = parts[1]
            if target in rooms and target != room_of(path):
                graph[room_of(path)].add(target)
    return graph


def floors(graph: Graph) -> dict[str, int]:
    """Room -> its floor, 0 for a room that imports none."""
    found: dict[str, int] = {}
    while len(found) < len(graph):
        ready = [r for r, below in graph.items() if r not in found and below <= found.keys()]
        if not ready:
            raise SystemExit(f"in a circle: {sorted(graph.keys() - found.keys())}")
        for room in ready:
            found[room] = max((found[below] + 1 for below in graph[room]), default=0)
    return found


def reduced(graph: Graph) -> Graph:
    """The graph without the arrows that others imply."""
    everything: Graph = {}
    for room in sorted(graph, key=floors(graph).__getitem__):
        below = graph[room]
        everything[room] = below.union(*(everything[other] for other in below))
    return {
        room: {
            target
            for target in below
            if not any(target in everything[other] for other in below - {target})
        }
        for room, below in graph.items()
    }


def table(graph: Graph) -> str:
    """The rooms from the top floor down, with what each imports."""
    levels = floors(graph)
    by_floor: dict[int, list[str]] = defaultdict(list)
    for room, level in levels.items():
        by_floor[level].append(room)
    lines = ["| floor | room | imports |", "|---:|---|---|"]
    for level in sorted(by_floor, reverse=True):
        for room in sorted(by_floor[level]):
            below = sorted(graph[room], key=lambda other: (-levels[other], other))
            words = ", ".join(f"`{other}`" for other in below) or "none"
            lines.append(f"| {level} | `{room}` | {words} |")
    return "\n".join(lines) + "\n"


def place(
    rows: dict[int, list[str]], arrows: Graph, width: float
) -> dict[str, tuple[float, float]]:
    """Where each room stands: on its floor, below the middle of those that point at it."""
    found: dict[str, tuple[float, float]] = {}
    for level in sorted(rows, reverse=True):
        row = rows[level]
        wanted: dict[str, float] = {}
        for room in row:
            above = [found[other][0] for other in found if room in arrows[other]]
            wanted[room] = sum(above) / len(above) if above else width / 2
        ordered = sorted(row, key=lambda room: (wanted[room], room))
        step = width / len(ordered)
        for number, room in enumerate(ordered):
            middle = (number + 0.5) * step
            found[room] = (0.7 * middle + 0.3 * wanted[room], float(level))
        for left, right in pairwise(ordered):
            x, y = found[right]
            found[right] = (max(x, found[left][0] + 0.55), y)
    return found


def draw(graph: Graph, out: Path) -> None:
    """The picture, one row per floor."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "rooms"
    import matplotlib.pyplot as plt

    levels = floors(graph)
    rows: dict[int, list[str]] = defaultdict(list)
    for room in sorted(graph):
        rows[levels[room]].append(room)
    widest = max(len(row) for row in rows.values())
    arrows = reduced(graph)
    places = place(rows, arrows, float(widest))

    figure, axes = plt.subplots(figsize=(11, 8), constrained_layout=True)
    for room, below in arrows.items():
        for other in sorted(below):
            axes.annotate(
                "",
                xy=places[other],
                xytext=places[room],
                arrowprops={
                    "arrowstyle": "-|>",
                    "color": "#8a8a8a",
                    "shrinkA": 14,
                    "shrinkB": 14,
                    "connectionstyle": "arc3,rad=0.04",
                },
            )
    for room, (x, y) in places.items():
        box = {"boxstyle": "round,pad=0.5", "facecolor": "#e8eef7", "edgecolor": "#37506f"}
        axes.text(x, y, room, ha="center", va="center", fontsize=11, bbox=box)
    axes.set_xlim(0, widest)
    axes.set_ylim(-0.6, max(rows) + 0.6)
    axes.axis("off")
    axes.set_title("Rooms and their imports, from the top floor down")
    figure.savefig(out, format="svg", metadata={"Date": None})
    plt.close(figure)


def page(graph: Graph) -> str:
    """docs/extend.md with the table as it should be."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{table(graph)}\n{_END}{after}"


def main() -> int:
    """Write or check; returns an exit status."""
    graph = read_graph()
    status = write_or_check(PAGE, page(graph))
    if "--check" not in sys.argv[1:]:
        draw(graph, PICTURE)
    return status


if __name__ == "__main__":
    sys.exit(main())
