"""The report as one page of HTML that needs nothing else: plots are SVG inside it, and there is no script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from edge_face.bench.results import Advice, Measured, Timing
from edge_face.bench.table import number, vitals

_WIDTH, _LABEL, _BAR, _GAP = 720, 190, 18, 8
_COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1")
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:760px;margin:2em auto;padding:0 1em;color:#1a202c;background:#fff}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse;width:100%}
td,th{padding:.2em .6em;border-bottom:1px solid #e2e8f0;text-align:right}td:first-child,th:first-child{text-align:left}
pre{background:#f7fafc;padding:1em;overflow:auto}svg{max-width:100%;height:auto}svg text{font:12px system-ui,sans-serif}
.advice{background:#ebf8ff;border-left:4px solid #2b6cb0;padding:.5em 1em}footer{color:#718096;margin-top:3em}
"""


def page(measured: Measured, advice: Advice) -> str:
    board = measured.board
    title = f"edge-face on {board.name}"
    timings = [*measured.stages, *(cost.timing for cost in measured.matches)]
    head_line = (
        f"{measured.date}. {board.cpus} processors ({board.machine}), {board.memory_mib} MiB. {measured.width}x"
        f"{measured.height} of {measured.source}, backend {measured.backend}, ready after {measured.start_s:.1f} s."
        f"{' A quick run: fewer rounds.' if measured.quick else ''}"
    )
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(head_line)}</p>",
        '<div class="advice">',
        *(f"<p>{escape(word)}</p>" for word in advice.words),
        "</div>",
    ]
    if advice.settings:
        parts.append(f"<h2>For config.ini</h2><pre>{escape(advice.fragment())}</pre>")
    runs = [(f"{run.cameras} with {run.detector}", run.fps) for run in measured.cameras]
    if runs:
        parts += ["<h2>Frames a second, all cameras together</h2>", bars(runs, "fps")]
        head = ("cameras", "fps", "work p50 ms", "p95 ms", "p99 ms", "MiB each")
        rows = [
            (f"{run.cameras} with {run.detector}", f"{run.fps:.1f}", *_times(run.frame), f"{run.memory_mib:.0f}")
            for run in measured.cameras
        ]
        parts.append(_table(head, rows))
    parts += [
        "<h2>Each stage, p95 (milliseconds; the scale is logarithmic)</h2>",
        bars([(timing.name, timing.p95_ms) for timing in timings], "ms", logarithmic=True),
        _table(
            ("stage", "p50 ms", "p95 ms", "p99 ms", "runs"),
            [(timing.name, *_times(timing), str(timing.runs)) for timing in timings],
        ),
    ]
    parts += _curves(measured)
    parts += ["<h2>The board meanwhile</h2>", *(f"<p>{escape(line)}</p>" for line in vitals(measured))]
    parts += [f"<p>Not measured: {escape(note)}</p>" for note in measured.notes]
    versions = ", ".join(f"{name} {version}" for name, version in board.versions.items())
    parts.append(f"<footer>Made by edge-face bench. {escape(versions)}</footer>")
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title)}</title><style>{_STYLE}</style>'
        "</head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _curves(measured: Measured) -> list[str]:
    parts: list[str] = []
    searches: dict[str, list[tuple[float, float]]] = {}
    for cost in sorted(measured.searches, key=lambda cost: cost.min_face):
        searches.setdefault(cost.detector, []).append((cost.min_face, cost.timing.p95_ms))
    parts += ["<h2>Search of a whole frame by min_face (pixels), p95 in ms</h2>", curves(searches, "ms")]
    samples = measured.vitals.samples
    heat = [(sample.at_s, sample.temperature_c) for sample in samples if sample.temperature_c is not None]
    power = [(sample.at_s, sample.watts) for sample in samples if sample.watts is not None]
    if heat:
        parts += ["<h2>Temperature by seconds of the run</h2>", curves({"°C": heat}, "°C")]
    if power:
        parts += ["<h2>Power by seconds of the run</h2>", curves({"W": power}, "W")]
    memory = [(sample.at_s, sample.memory_mib) for sample in samples]
    parts += ["<h2>Memory by seconds of the run, MiB</h2>", curves({"MiB": memory}, "MiB")]
    return parts


def _times(timing: Timing) -> tuple[str, str, str]:
    return number(timing.p50_ms), number(timing.p95_ms), number(timing.p99_ms)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    first = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    rest = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>" for cells in rows)
    return f"<table><tr>{first}</tr>{rest}</table>"


def bars(values: Sequence[tuple[str, float]], unit: str, *, logarithmic: bool = False) -> str:
    """Lying bars with their names and numbers."""
    height = len(values) * (_BAR + _GAP)
    room = _WIDTH - _LABEL - 90
    most = max((value for _, value in values), default=0) or 1.0
    least = min((value for _, value in values if value > 0), default=most)
    span = math.log10(most / least) + 0.3
    drawn = []
    for row, (name, value) in enumerate(values):
        y = row * (_BAR + _GAP)
        part = value / most
        if logarithmic:
            part = (math.log10(value / least) + 0.3) / span if value > 0 else 0.0
        text = f"{number(value) if unit == 'ms' else f'{value:.1f}'} {unit}"
        drawn.append(
            f'<text x="{_LABEL - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{_LABEL}" y="{y}" width="{max(1.0, room * part):.1f}" height="{_BAR}" fill="{_COLOURS[0]}"/>'
            f'<text x="{_LABEL + room * part + 6:.1f}" y="{y + 13}">{escape(text)}</text>'
        )
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img">{"".join(drawn)}</svg>'


def curves(lines: dict[str, list[tuple[float, float]]], unit: str) -> str:
    """Lines over a common ground, from 0 upwards."""
    height, left, bottom = 240, 60, 210
    points = [point for line in lines.values() for point in line]
    if not points:
        return ""
    x_least, x_most = min(x for x, _ in points), max(x for x, _ in points)
    y_most = max(y for _, y in points) or 1.0
    x_span = (x_most - x_least) or 1.0

    def place(x: float, y: float) -> str:
        return f"{left + (x - x_least) / x_span * (_WIDTH - left - 120):.1f},{bottom - y / y_most * (bottom - 14):.1f}"

    drawn = [
        f'<path d="M{left} 8V{bottom}H{_WIDTH - 110}" fill="none" stroke="#a0aec0"/>',
        f'<text x="{left - 6}" y="20" text-anchor="end">{y_most:.3g} {escape(unit)}</text>',
        f'<text x="{left - 6}" y="{bottom}" text-anchor="end">0</text>',
        f'<text x="{left}" y="{bottom + 18}">{x_least:g}</text>',
        f'<text x="{_WIDTH - 120}" y="{bottom + 18}" text-anchor="end">{x_most:g}</text>',
    ]
    for index, (name, line) in enumerate(lines.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        path = " ".join(place(x, y) for x, y in line)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        drawn += [
            f'<circle cx="{x}" cy="{y}" r="2.5" fill="{colour}"/>' for x, y in (p.split(",") for p in path.split())
        ]
        drawn.append(f'<text x="{_WIDTH - 100}" y="{24 + 18 * index}" fill="{colour}">{escape(name)}</text>')
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img">{"".join(drawn)}</svg>'
