"""Tables and plots as Markdown that reads the same on a page and in a terminal."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 64, 14
_MARKS = "oxv*"
_LABEL = 10


def table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Rows as Markdown, without the columns that are empty in all."""
    keys = [
        key
        for key in dict.fromkeys(key for row in rows for key in row)
        if any(row.get(key) is not None for row in rows)
    ]
    yield "| " + " | ".join(keys) + " |"
    yield "|" + "---|" * len(keys)
    for row in rows:
        yield "| " + " | ".join(_cell(row.get(key)) for key in keys) + " |"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def plot(lines: Mapping[str, Points], across: str, *, logarithmic: bool) -> Iterator[str]:
    """Lines over a common ground, as text in a fenced block; values above 0.

    `across`: what the horizontal axis counts. Linear plots begin at 0. Both axes are of one kind, so a cost that grows
    with the count is a straight line in either.
    """
    points = [point for line in lines.values() for point in line]
    across_axis = _Axis([x for x, _ in points], _WIDTH, logarithmic)
    up_axis = _Axis([y for _, y in points], _HEIGHT, logarithmic)
    ground = [[" "] * _WIDTH for _ in range(_HEIGHT)]
    for mark, line in zip(_MARKS, lines.values(), strict=False):
        places = [(across_axis.place(x), up_axis.place(y)) for x, y in sorted(line)]
        for (x1, y1), (x2, y2) in itertools.pairwise(places):
            for column in range(x1 + 1, x2):
                row = round(y1 + (y2 - y1) * (column - x1) / (x2 - x1))
                ground[row][column] = "." if ground[row][column] == " " else ground[row][column]
        for x, y in places:
            ground[y][x] = mark
    yield "```"
    for number in reversed(range(_HEIGHT)):
        label = {_HEIGHT - 1: f"{up_axis.most:.3g}", 0: f"{up_axis.least:.3g}"}.get(number, "")
        yield f"{label:>{_LABEL}} |{''.join(ground[number])}".rstrip()
    yield f"{'':>{_LABEL}} +{'-' * _WIDTH}"
    ends = f"{across_axis.least:,.0f}", f"{across_axis.most:,.0f}"
    yield f"{'':>{_LABEL}}  {ends[0]}{across:^{_WIDTH - len(ends[0]) - len(ends[1])}}{ends[1]}"
    yield f"{'':>{_LABEL}}  " + "   ".join(f"{mark} {name}" for mark, name in zip(_MARKS, lines, strict=False))
    yield "```"


class _Axis:
    def __init__(self, values: Sequence[float], places: int, logarithmic: bool) -> None:
        self.least, self.most = min(values) if logarithmic else 0.0, max(values)
        self._scale = math.log if logarithmic else float
        self._places = places

    def place(self, value: float) -> int:
        least, most = self._scale(self.least), self._scale(self.most)
        return round((self._scale(value) - least) / ((most - least) or 1.0) * (self._places - 1))


def exponent(points: Points) -> float:
    """How cost y grows with the count x where that is largest: as x to this power, over the upper half of the line.

    1: twice the count costs twice as much; 0: the same.
    """
    upper = sorted(points)[-max(2, (len(points) + 1) // 2) :]
    (x1, y1), (x2, y2) = upper[0], upper[-1]
    return float(math.log(y2 / y1) / math.log(x2 / x1))


def each_more(points: Points) -> float:
    """What one more costs: the slope of the straight line nearest to the points."""
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    over = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return float(over / sum((x - mean_x) ** 2 for x, _ in points))
