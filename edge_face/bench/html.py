"""The report as one page of HTML that needs nothing else: plots are SVG inside it, and there is no script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from html import escape

from edge_face.bench.results import Advice, Measured, Timing
from edge_face.bench.table import number, vitals

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _BOTTOM = 480, 200, 62, 64, 176
"""Of a plot of curves. No wider than a telephone, where it is drawn smaller still, and its words with it."""
_COLOURS = 4
_STYLE = """
:root{color-scheme:light dark;--ink:#1a202c;--page:#fff;--line:#e2e8f0;--soft:#f1f5f9;--dim:#5a6778;
--c0:#2b6cb0;--c1:#c05621;--c2:#2f855a;--c3:#6b46c1}
@media(prefers-color-scheme:dark){:root{--ink:#e2e8f0;--page:#171c26;--line:#38445a;--soft:#222a38;--dim:#9aa7ba;
--c0:#63a4e8;--c1:#f0935a;--c2:#5fc48d;--c3:#a68bf0}}
body{font:15px/1.5 system-ui,sans-serif;max-width:760px;margin:2em auto;padding:0 1em;color:var(--ink);
background:var(--page);overflow-wrap:break-word}
h1{font-size:1.5em;line-height:1.25}h2{font-size:1.15em;margin-top:2em}p{margin:.6em 0}
table{border-collapse:collapse;width:100%;margin-top:1em;font-variant-numeric:tabular-nums}
td,th{padding:.2em .6em;border-bottom:1px solid var(--line);text-align:right;vertical-align:bottom}
td:first-child,th:first-child{text-align:left;padding-left:0;white-space:nowrap}
pre{background:var(--soft);padding:1em;overflow:auto}
.advice{background:var(--soft);border-left:4px solid var(--c0);padding:.2em 1em}
.bars{display:grid;grid-template-columns:max-content 1fr;gap:.35em .7em;align-items:center;font-size:.87em}
.bar{display:flex;align-items:center;gap:.5em;white-space:nowrap}.bar i{background:var(--c0);height:1.2em;min-width:1px}
svg{display:block;width:100%;max-width:600px;height:auto}svg text{font:12px system-ui,sans-serif;fill:var(--ink)}
svg .axis{stroke:var(--dim)}svg .end{text-anchor:end}footer{color:var(--dim);margin-top:3em;font-size:.87em}
@media(max-width:500px){body{margin-top:1em}td,th{padding:.2em .3em}.bars{font-size:.8em}svg text{font-size:14px}}
"""


def page(measured: Measured, advice: Advice) -> str:
    board = measured.board
    title = f"edge-face on {board.name}"
    timings = [*measured.stages, *(cost.timing for cost in measured.matches)]
    at = datetime.fromisoformat(measured.date)
    head_line = (
        f"{at:%Y-%m-%d %H:%M} {at.tzname()}. {board.cpus} processors ({board.machine}), {board.memory_mib} MiB. "
        f"{measured.width}x{measured.height} of {measured.source}, backend {measured.backend}, ready after "
        f"{measured.start_s:.1f} s.{' A quick run: fewer rounds.' if measured.quick else ''}"
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
        head = ("cameras", "fps", "work p50 ms", "p95 ms", "p99 ms", "CPU ms", "MiB each")
        rows = [
            (name, f"{fps:.1f}", *_times(run.frame), number(run.cpu_ms), f"{run.memory_mib:.0f}")
            for (name, fps), run in zip(runs, measured.cameras, strict=True)
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
    versions = ", ".join(
        version if version.startswith(name) else f"{name} {version}" for name, version in board.versions.items()
    )
    parts.append(f"<footer>Made by edge-face bench. {escape(versions)}</footer>")
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
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
    """Lying bars with their names and numbers; on a narrow screen they are shorter, and their words as large."""
    most = max((value for _, value in values), default=0) or 1.0
    least = min((value for _, value in values if value > 0), default=most)
    span = math.log10(most / least) + 0.3
    drawn = []
    for name, value in values:
        part = value / most
        if logarithmic:
            part = (math.log10(value / least) + 0.3) / span if value > 0 else 0.0
        text = f"{number(value) if unit == 'ms' else f'{value:.1f}'} {unit}"
        drawn.append(
            f'<span>{escape(name)}</span><span class="bar"><i style="width:{75 * part:.1f}%"></i>{escape(text)}</span>'
        )
    return f'<div class="bars">{"".join(drawn)}</div>'


def curves(lines: dict[str, list[tuple[float, float]]], unit: str) -> str:
    """Lines over a common ground, from 0 upwards."""
    points = [point for line in lines.values() for point in line]
    if not points:
        return ""
    x_least, x_most = min(x for x, _ in points), max(x for x, _ in points)
    y_most = max(y for _, y in points) or 1.0
    x_span = (x_most - x_least) or 1.0
    right = _WIDTH - _RIGHT

    def place(x: float, y: float) -> tuple[float, float]:
        return _LEFT + (x - x_least) / x_span * (right - _LEFT), _BOTTOM - y / y_most * (_BOTTOM - 14)

    drawn = [
        f'<path class="axis" d="M{_LEFT} 8V{_BOTTOM}H{right + 6}" fill="none"/>',
        f'<text class="end" x="{_LEFT - 6}" y="20">{y_most:.3g} {escape(unit)}</text>',
        f'<text class="end" x="{_LEFT - 6}" y="{_BOTTOM}">0</text>',
        f'<text x="{_LEFT}" y="{_BOTTOM + 18}">{x_least:g}</text>',
        f'<text class="end" x="{right}" y="{_BOTTOM + 18}">{x_most:g}</text>',
    ]
    for index, (name, line) in enumerate(lines.items()):
        colour = f"var(--c{index % _COLOURS})"
        places = [place(x, y) for x, y in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        drawn.append(f'<polyline points="{path}" style="fill:none;stroke:{colour};stroke-width:2"/>')
        drawn += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" style="fill:{colour}"/>' for x, y in places]
        drawn.append(f'<text x="{right + 12}" y="{24 + 18 * index}" style="fill:{colour}">{escape(name)}</text>')
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(drawn)}</svg>'
