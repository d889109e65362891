"""All chapters in one picture: a dot a paper on the axis of the data multiplier, a strip a part (SVG, no script).

Places along the axis are in per cent and everything else in pixels, so that the letters stay as large on a phone as on
a laptop.  What keeps apart on `NARROW` pixels keeps apart on more: places are chosen for that width.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from nearfar.chapters import papers
from nearfar.runs.multiplier import Multiplier

NARROW, WIDE = 330, 660  # pixels of the picture on a phone, and from where names are shown that need the room
EDGE = 4.0  # per cent of the width on each side of the axis
RADIUS, LANE, HEADING, AXIS = 5, 16, 19, 40  # pixels: a dot, a row of a strip, the strip's name, the axis
LANES = 32  # rows that the parts share; a part takes more only where its dots would touch
LETTER = 6.6  # pixels, of a name


@dataclass(frozen=True)
class Dot:
    """A chapter on the axis; told: title, numbers and verdicts, one a line; sure: recorded above the smoke tier."""

    name: str
    part: str
    link: str
    told: str
    multiplier: Multiplier
    sure: bool = True


@dataclass(frozen=True)
class Axis:
    """Of multipliers, in powers of two: from 2**low to 2**high."""

    low: int
    high: int

    @classmethod
    def of(cls, found: Sequence[Multiplier]) -> "Axis":
        """Holds every exact multiplier, and of the intervals what lies within a factor of two beyond."""
        exact = [each for each in found if each.kind == "exact"]
        values = [math.log2(each.value) for each in exact]
        lows = [math.log2(each.low) for each in exact if each.low > 0]  # not nan
        highs = [math.log2(each.high) for each in exact if 0 < each.high < math.inf]
        low, high = math.floor(min(values, default=0)), math.ceil(max(values, default=0))
        return cls(
            min(-1, max(low - 1, math.floor(min(lows, default=low)))),
            max(1, min(high + 1, math.ceil(max(highs, default=high)))),
        )

    def place(self, value: float) -> float:
        """Per cent of the picture's width; what lies beyond the axis stands at its end."""
        power = math.log2(value) if 0 < value < math.inf else self.low if value <= 0 else self.high
        share = (min(max(power, self.low), self.high) - self.low) / (self.high - self.low)
        return EDGE + (100 - 2 * EDGE) * share

    def ticks(self) -> list[int]:
        """Powers of two that are named: at most eight, and always one of them is 1×."""
        step = -(-(self.high - self.low) // 8)
        return [power for power in range(self.low, self.high + 1) if power % step == 0]


def _ends(multiplier: Multiplier, axis: Axis) -> tuple[float, float, float]:
    """Places (low, value, high); three times the same for a bound, which stands at the axis's end, and for one seed."""
    if multiplier.kind != "exact":
        place = axis.place(math.inf if multiplier.kind == "above" else 0)
        return place, place, place
    value = axis.place(multiplier.value)
    if math.isnan(multiplier.low):
        return value, value, value
    return axis.place(multiplier.low), value, axis.place(multiplier.high)


def _arrow(place: float, y: float, way: int) -> str:
    """A triangle with its tip at the place, to the right (way 1) or to the left (-1)."""
    points = f"0,{y:g} {-9 * way},{y - 5:g} {-9 * way},{y + 5:g}"
    return f'<svg x="{place:.2f}%" overflow="visible"><polygon class="nf-arrow" points="{points}"/></svg>'


def mark(multiplier: Multiplier, axis: Axis, y: float, sure: bool = True) -> str:
    """SVG of one multiplier: its interval, with an arrow where it leaves the axis, and a dot; for a bound an arrow."""
    low, value, high = _ends(multiplier, axis)
    if multiplier.kind != "exact":
        return _arrow(value, y, 1 if multiplier.kind == "above" else -1)
    drawn = []
    if low < high:
        drawn.append(f'<line class="nf-interval" x1="{low:.2f}%" x2="{high:.2f}%" y1="{y:g}" y2="{y:g}"/>')
        drawn += [_arrow(low, y, -1)] if multiplier.low < 2.0**axis.low else []
        drawn += [_arrow(high, y, 1)] if multiplier.high > 2.0**axis.high else []
    kind = "nf-dot" if sure else "nf-dot nf-hollow"
    return "".join([*drawn, f'<circle class="{kind}" cx="{value:.2f}%" cy="{y:g}" r="{RADIUS}"/>'])


@dataclass
class Placed:
    """A dot in its row of the strip; anchor: where its name begins (side 1) or ends (side -1), in per cent.

    shown: from which width on the name is shown; None: only when pointed at.
    """

    dot: Dot
    row: int
    anchor: float
    side: int
    shown: int | None


Span = tuple[float, float]


def _free(span: Span, taken: Sequence[Span]) -> bool:
    return all(span[1] <= start or end <= span[0] for start, end in taken)


class _Row:
    """What stands in one row of a strip at one width, in pixels."""

    def __init__(self, width: int):
        self.width, self.dots, self.lines, self.names = width, [], [], []

    def spans(self, dot: Dot, axis: Axis) -> tuple[Span, Span]:
        """Pixels of the dot and of dot and interval."""
        low, value, high = (place / 100 * self.width for place in _ends(dot.multiplier, axis))
        around = 9 if dot.multiplier.kind != "exact" else RADIUS + 1
        return (value - around, value + around), (min(low, value - around), max(high, value + around))

    def name(self, dot: Dot, axis: Axis, side: int) -> Span:
        """Pixels of the name to the right (1) or left (-1) of dot and interval."""
        start, end = self.spans(dot, axis)[1]
        length = LETTER * len(dot.name) + 8
        return (end, end + length) if side == 1 else (start - length, start)

    def holds(self, dot: Dot, axis: Axis) -> bool:
        """Whether dot and interval have room."""
        return _free(self.spans(dot, axis)[1], [*self.lines, *self.names])

    def crossed(self, dot: Dot, axis: Axis) -> bool:
        """Whether the dot has room among dots, and its interval among names: intervals may lie on each other."""
        small, whole = self.spans(dot, axis)
        return _free(small, self.dots) and _free(whole, self.names)

    def sides(self, dot: Dot, axis: Axis) -> list[int]:
        """On which sides of dot and interval the name has room."""
        taken, spans = [*self.lines, *self.names], {side: self.name(dot, axis, side) for side in (1, -1)}
        return [
            side
            for side, (start, end) in spans.items()
            if start >= 0 and end <= self.width and _free((start, end), taken)
        ]

    def put(self, dot: Dot, axis: Axis) -> None:
        small, whole = self.spans(dot, axis)
        self.dots.append(small)
        self.lines.append(whole)


def _distance(dot: Dot, axis: Axis) -> float:
    """From the place of 1×, in per cent; bounds are the furthest."""
    return abs(_ends(dot.multiplier, axis)[1] - axis.place(1)) if dot.multiplier.kind == "exact" else math.inf


def _in_rows(dots: Sequence[Dot], axis: Axis, rows: int) -> list[Placed]:
    """Each dot in a row, with its name where there is room for it on a phone."""
    narrow: list[_Row] = []
    found: list[Placed] = []
    for dot in sorted(dots, key=lambda dot: -_distance(dot, axis)):
        new = [_Row(NARROW)] if len(narrow) < rows else []
        tries = new if len(dots) <= rows else [*narrow, *new]  # each has a row of its own, where they are few
        bare = [row for row in tries if row.holds(dot, axis)]
        named = [row for row in bare if row.sides(dot, axis)]
        crossed = [row for row in narrow if row.crossed(dot, axis)]
        row = [*named, *bare, *crossed, _Row(NARROW)][0]
        side = row.sides(dot, axis)[0] if named else 0
        row.put(dot, axis)
        row.names += [row.name(dot, axis, side)] if side else []
        narrow += [] if row in narrow else [row]
        found.append(Placed(dot, narrow.index(row), 0, side, NARROW if side else None))
    return found


def placed(dots: Sequence[Dot], axis: Axis, rows: int) -> list[Placed]:
    """Where the dots of one part stand: the largest multipliers in the first rows, no two dots touch.

    Those furthest from one choose first: a row with room for dot, interval and name, else for dot and interval, else
    one where only intervals cross; a row beyond `rows` only where even that has none.
    """
    found = _in_rows(dots, axis, rows)
    wide = [_Row(WIDE) for _ in found]
    for each in found:
        wide[each.row].put(each.dot, axis)
    for each in sorted(found, key=lambda each: each.shown is None):  # names that are shown anyway come first
        row = wide[each.row]
        if each.shown is None:
            sides = row.sides(each.dot, axis)
            each.shown, each.side = (WIDE, sides[0]) if sides else (None, 1 if each.dot.multiplier.value < 1 else -1)
        row.names += [row.name(each.dot, axis, each.side)] if each.shown else []
        low, _, high = _ends(each.dot.multiplier, axis)
        each.anchor = high if each.side == 1 else low
    value = {id(each): _ends(each.dot.multiplier, axis)[1] for each in found}
    in_row = {n: [value[id(each)] for each in found if each.row == n] for n in {each.row for each in found}}
    order = sorted(in_row, key=lambda n: -sum(in_row[n]) / len(in_row[n]))
    for each in found:
        each.row = order.index(each.row)
    return sorted(found, key=lambda each: (each.row, -value[id(each)]))


def _link(each: Placed, axis: Axis, y: float) -> str:
    """The dot as a link, with its name and, for who points at it, what it stands for."""
    told = html.escape(each.dot.told)
    _, value, _ = _ends(each.dot.multiplier, axis)
    shown = {NARROW: "nf-name", WIDE: "nf-name nf-if-wide", None: "nf-name nf-if-pointed"}[each.shown]
    drawn = mark(each.dot.multiplier, axis, y, each.dot.sure)
    away = 5 if each.anchor != value else RADIUS + 5
    return (
        f'<a href="{html.escape(each.dot.link)}" aria-label="{told.replace(chr(10), "; ")}"><title>{told}</title>'
        f'<circle class="nf-room" cx="{value:.2f}%" cy="{y:g}" r="8.5"/>{drawn}'
        f'<text class="{shown}" x="{each.anchor:.2f}%" dx="{away * each.side}" y="{y + 4:g}" '
        f'text-anchor="{"start" if each.side == 1 else "end"}">{html.escape(each.dot.name)}</text></a>'
    )


def _scale(axis: Axis, bottom: float) -> list[str]:
    """Lines of the ticks, their names and, above, who is ahead on which side."""
    tie = f"{axis.place(1):.2f}%"
    lines = [f'<text class="nf-side" x="{tie}" dx="-6" y="13" text-anchor="end">← baseline ahead</text>',
             f'<text class="nf-side" x="{tie}" dx="6" y="13">method ahead →</text>']  # fmt: skip
    for power in axis.ticks():
        place, kind = f"{axis.place(2.0**power):.2f}%", "nf-grid" if power else "nf-grid nf-tie"
        lines.append(f'<line class="{kind}" x1="{place}" x2="{place}" y1="{AXIS - 4}" y2="{bottom}"/>')
        lines.append(f'<text class="nf-tick" x="{place}" y="{AXIS - 9}" text-anchor="middle">{times(power)}</text>')
    return lines


def times(power: int) -> str:
    """`4×`, `1/8×`"""
    return f"{2**power}×" if power >= 0 else f"1/{2**-power}×"


def drawing(dots: Sequence[Dot]) -> str:
    """The picture as inline SVG; there must be a dot."""
    axis = Axis.of([dot.multiplier for dot in dots])
    parts = [part for part in papers.PARTS if any(dot.part == part for dot in dots)]
    grounds, strips, y = [], [], AXIS
    for part in parts:
        mine = placed([dot for dot in dots if dot.part == part], axis, max(3, LANES // len(parts)))
        height = HEADING + LANE * (1 + max(each.row for each in mine)) + 4
        grounds.append(f'<rect class="nf-strip" y="{y}" width="100%" height="{height}" rx="4"/>')
        links = [_link(each, axis, y + HEADING + LANE * (each.row + 0.5)) for each in mine]
        strips += [f'<g class="nf-part-{part}">', f'<text class="nf-strip-name" x="8" y="{y + 14}">',
                   html.escape(papers.PARTS[part]), "</text>", *links, "</g>"]  # fmt: skip
        y += height + 6
    label = "Data multiplier of each chapter, by part, on a logarithmic axis; every dot is a link to its chapter"
    top = f'<svg class="nf-landscape" width="100%" height="{y}" role="group" aria-label="{label}">'
    return "\n".join([top, *grounds, *_scale(axis, y - 6), *strips, "</svg>"])
