"""The states of a process as a picture: plain SVG, top down by distance from the opening.

States stand in one column; what leads down runs on the right, what leads back on the left, each in its own lane, so
that neither labels nor lines lie on one another. A dot is where lines join; where there is none they only cross.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from html import escape

from caseward.process import Process

BOX, ROW_GAP, SLOT, LANE = 230, 40, 22, 16  # pixels, as all below
MARGIN, TITLE_ROOM, CHARACTER = 24, 40, 6.6  # a character of a label is no wider on the average

STYLE = """
.cw-diagram { --ink: #1d2733; --line: #51606f; --paper: #fff; --rest: #eef3f8; --pending: #fdf3dc; --final: #e3f1e6;
  --mark: #1565c0; font: 12px system-ui, sans-serif; max-width: 100%; height: auto; }
.cw-diagram text { fill: var(--ink); }
.cw-diagram .paper { fill: var(--paper); }
.cw-diagram .state rect { fill: var(--rest); stroke: var(--line); }
.cw-diagram .state.pending rect { fill: var(--pending); stroke-dasharray: 5 3; }
.cw-diagram .state.final rect { fill: var(--final); stroke-width: 3; }
.cw-diagram .state.visited rect { stroke: var(--mark); }
.cw-diagram .state.current rect { stroke: var(--mark); stroke-width: 4; }
.cw-diagram .name { font-size: 14px; font-weight: 600; text-anchor: middle; }
.cw-diagram .who { font-size: 11px; text-anchor: middle; }
.cw-diagram .edge path { fill: none; stroke: var(--line); stroke-width: 1.3; }
.cw-diagram .edge.outcome path { stroke-dasharray: 4 3; }
.cw-diagram .edge .tip, .cw-diagram .edge .joint, .cw-diagram .start { fill: var(--line); stroke: none; }
.cw-diagram .back text { text-anchor: end; }
@media (prefers-color-scheme: dark) { .cw-diagram { --ink: #e6ebf0; --line: #9aa8b5; --paper: #14191f; --rest: #223041;
  --pending: #463a1c; --final: #1f3d2a; --mark: #64b5f6; } }
@media print { .cw-diagram { --ink: #000; --line: #333; --paper: #fff; --rest: #fff; --pending: #fff; --final: #fff; } }
"""


@dataclass(frozen=True)
class Arrow:
    """What leads from some states to another; an outcome, which nobody takes, has no label."""

    sources: tuple[str, ...]
    to: str
    label: str = ""


@dataclass
class _Row:
    """A state's place, and what is attached to each of its sides, from above."""

    name: str
    top: float = 0
    right: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    left: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])

    @property
    def height(self) -> float:
        return max(2, len(self.right), len(self.left)) * SLOT + 8

    def slot(self, side: str, key: tuple[int, str]) -> float:
        """The height at which one line is attached."""
        slots = sorted(self.right if side == "right" else self.left, key=_by_end)
        unused = self.height - len(slots) * SLOT
        return self.top + unused / 2 + (slots.index(key) + 0.75) * SLOT


def _by_end(key: tuple[int, str]) -> tuple[bool, int]:
    return key[1] == "out", key[0]


def diagram(
    process: Process,
    *,
    current: str | None = None,
    visited: Collection[str] = (),
    notes: Mapping[str, str] | None = None,
    alarming: Collection[str] = (),
    styled: bool = True,
) -> str:
    """The picture; `current` and `visited` mark where one case stands, and where it has been.

    `notes` are said in the boxes of states in place of who is to move, `alarming` ones stand out. Where `styled` is
    false it takes its colours from the page around it, which may forbid styles of its own.
    """
    arrows = list(_arrows(process))
    order = _order(process, arrows)
    rows = {name: _Row(name) for name in order}
    place = {name: index for index, name in enumerate(order)}
    straight, routed = _split(arrows, place)
    for number, (arrow, side) in enumerate(routed):
        for name, end in [*((source, "out") for source in arrow.sources), (arrow.to, "in")]:
            (rows[name].right if side == "right" else rows[name].left).append((number, end))
    top: float = MARGIN + TITLE_ROOM
    for name in order:
        rows[name].top = top
        top += rows[name].height + ROW_GAP
    spans = [_span(rows, arrow, side, number) for number, (arrow, side) in enumerate(routed)]
    lanes = _lanes([(side, *span) for (_, side), span in zip(routed, spans, strict=True)])
    sides = {
        side: _room(arrow.label for arrow, of in routed if of == side)
        + LANE * (1 + max((lane for lane, (_, of) in zip(lanes, routed, strict=True) if of == side), default=-1))
        for side in ("left", "right")
    }
    x = MARGIN + sides["left"]
    width, height = x + BOX + sides["right"] + MARGIN, top - ROW_GAP + MARGIN
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="cw-diagram" role="img" {size}>',
        f"<title>{escape(process.title)}: its states and what leads from one to another</title>",
        *([f"<style>{STYLE}</style>"] if styled else []),
        f'<rect class="paper" width="{width:.0f}" height="{height:.0f}"/>',
        *_opening(process, x + BOX / 2),
    ]
    for arrow in straight:
        above, below = rows[arrow.sources[0]], rows[arrow.to]
        parts += _straight(arrow, x + BOX / 2, above.top + above.height, below.top)
    for number, (arrow, side) in enumerate(routed):
        away = 1 if side == "right" else -1
        edge = x + BOX if side == "right" else x
        room = _room(each.label for each, of in routed if of == side)
        parts += _routed(arrow, side, rows, number, edge, edge + away * (room + LANE * lanes[number]))
    said = notes or {}
    for name in order:
        marks = {"visited": name in visited, "current": name == current, "alarming": name in alarming}
        parts += _box(process, rows[name], x, marks, said.get(name))
    return "\n".join([*parts, "</svg>", ""])


def _arrows(process: Process) -> Iterator[Arrow]:
    """Each transition to where it leads at first, then from each pending state to what may come of it."""
    outcomes = [(process.force_cancel.pending, process.force_cancel.to)]
    for transition in process.transitions:
        sources = tuple(state.name for state in process.states if state.name in transition.source)
        for first in (transition.pending,) if transition.pending else transition.targets:
            if sources:
                yield Arrow(sources, first, transition.title)
        if transition.pending:
            outcomes += [(transition.pending, target) for target in transition.targets]
    for pending, target in dict.fromkeys(outcomes):
        yield Arrow((pending,), target)


def _order(process: Process, arrows: Iterable[Arrow]) -> list[str]:
    """By distance from the opening; states at the same distance as declared, and those that end a case last."""
    reach: dict[str, set[str]] = {}
    for arrow in arrows:
        for source in arrow.sources:
            reach.setdefault(source, set()).add(arrow.to)
    opening = process.opening
    distance = dict.fromkeys((opening.pending,) if opening.pending else opening.targets, 0)
    frontier = list(distance)
    while frontier:
        name = frontier.pop(0)
        for further in sorted(reach.get(name, ())):
            if further not in distance:
                distance[further] = distance[name] + 1
                frontier.append(further)
    declared = sorted(process.states, key=lambda state: (state.final, distance.get(state.name, len(process.states))))
    return [state.name for state in declared]


def _split(arrows: Iterable[Arrow], place: dict[str, int]) -> tuple[list[Arrow], list[tuple[Arrow, str]]]:
    """What leads straight down to the next state, and the rest with its side; one arrow at most between neighbours."""
    straight: dict[int, Arrow] = {}
    routed: list[tuple[Arrow, str]] = []
    for arrow in arrows:
        sources = list(arrow.sources)
        above = next((name for name in sources if place[name] + 1 == place[arrow.to]), None)
        if above is not None and place[above] not in straight:
            straight[place[above]] = Arrow((above,), arrow.to, arrow.label)
            sources.remove(above)
        down = tuple(name for name in sources if place[name] < place[arrow.to])
        back = tuple(name for name in sources if place[name] >= place[arrow.to])
        routed += [(Arrow(down, arrow.to, arrow.label), "right")] if down else []
        routed += [(Arrow(back, arrow.to, arrow.label), "left")] if back else []
    return list(straight.values()), routed


def _span(rows: dict[str, _Row], arrow: Arrow, side: str, number: int) -> tuple[float, float]:
    ends = [rows[arrow.to].slot(side, (number, "in"))]
    ends += [rows[name].slot(side, (number, "out")) for name in arrow.sources]
    return min(ends), max(ends)


def _lanes(spans: list[tuple[str, float, float]]) -> list[int]:
    """The short ones inside; two in one lane never touch."""
    taken: dict[tuple[str, int], list[tuple[float, float]]] = {}
    lanes = [0] * len(spans)
    for index in sorted(range(len(spans)), key=lambda each: spans[each][2] - spans[each][1]):
        side, low, high = spans[index]
        lane = 0
        while any(low - SLOT < b and a < high + SLOT for a, b in taken.get((side, lane), ())):
            lane += 1
        taken.setdefault((side, lane), []).append((low, high))
        lanes[index] = lane
    return lanes


def _room(labels: Iterable[str]) -> float:
    """Beside the boxes, for the longest label."""
    return max((len(label) for label in labels), default=0) * CHARACTER + 2 * LANE


def _opening(process: Process, x: float) -> Iterator[str]:
    yield f'<g class="edge"><circle class="start" cx="{x:.1f}" cy="{MARGIN:.1f}" r="7"/>'
    yield f'<path d="M{x:.1f} {MARGIN:.1f}V{MARGIN + TITLE_ROOM - 8:.1f}"/>{_tip(x, MARGIN + TITLE_ROOM, "down")}'
    yield f'<text x="{x + 12:.1f}" y="{MARGIN + 20:.1f}">{escape(process.opening.title)}</text></g>'


def _straight(arrow: Arrow, x: float, top: float, bottom: float) -> Iterator[str]:
    yield f'<g class="{_kind(arrow)}"><path d="M{x:.1f} {top:.1f}V{bottom - 8:.1f}"/>{_tip(x, bottom, "down")}'
    yield f'<text x="{x + 8:.1f}" y="{(top + bottom) / 2 + 2:.1f}">{escape(arrow.label)}</text></g>'


def _routed(arrow: Arrow, side: str, rows: dict[str, _Row], number: int, edge: float, lane: float) -> Iterator[str]:
    away = 1 if side == "right" else -1
    end = rows[arrow.to].slot(side, (number, "in"))
    starts = sorted(rows[name].slot(side, (number, "out")) for name in arrow.sources)
    low, high = min(end, *starts), max(end, *starts)
    yield f'<g class="{_kind(arrow)}{" back" if side == "left" else ""}">'
    for start in starts:
        yield f'<path d="M{edge:.1f} {start:.1f}H{lane:.1f}"/>'
        if low < start < high:
            yield f'<circle class="joint" cx="{lane:.1f}" cy="{start:.1f}" r="3"/>'
        yield f'<text x="{edge + away * 8:.1f}" y="{start - 4:.1f}">{escape(arrow.label)}</text>'
    yield f'<path d="M{lane:.1f} {low:.1f}V{high:.1f}M{lane:.1f} {end:.1f}H{edge + away * 8:.1f}"/>'
    yield f"{_tip(edge, end, 'left' if side == 'right' else 'right')}</g>"


def _kind(arrow: Arrow) -> str:
    return "edge" if arrow.label else "edge outcome"


def _tip(x: float, y: float, to: str) -> str:
    """An arrowhead that ends there."""
    behind = {"down": "-5 -9h10z", "left": "9 -5v10z", "right": "-9 -5v10z"}[to]
    return f'<path class="tip" d="M{x:.1f} {y:.1f}l{behind}"/>'


def _box(process: Process, row: _Row, x: float, marked: Mapping[str, bool], note: str | None) -> Iterator[str]:
    state = process.state(row.name)
    marks = {
        "pending": state.name in process.pending_states,
        "final": state.final,
        **marked,
    }
    classes = " ".join(["state", *(name for name, is_so in marks.items() if is_so)])
    middle, centre = x + BOX / 2, row.top + row.height / 2
    yield f'<g class="{classes}" data-state="{escape(state.name)}"><title>{escape(state.meaning)}</title>'
    yield f'<rect x="{x:.1f}" y="{row.top:.1f}" width="{BOX}" height="{row.height:.1f}" rx="8"/>'
    yield f'<text class="name" x="{middle:.1f}" y="{centre - 1:.1f}">{escape(state.title)}</text>'
    who = "the case is closed" if state.final else "we are at work" if marks["pending"] else "nobody owes a move"
    if state.waiting_on is not None:
        who = f"waits for: {process.role_title(state.waiting_on).lower()}"
    who = who if note is None else note
    yield f'<text class="who" x="{middle:.1f}" y="{centre + 15:.1f}">{escape(who)}</text></g>'
