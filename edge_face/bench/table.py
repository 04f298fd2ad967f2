"""What was found, as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from edge_face.bench.results import Advice, Measured, Timing


def lines(measured: Measured, advice: Advice) -> Iterator[str]:
    board = measured.board
    yield f"{board.name}, {board.cpus} processors ({board.machine}), {board.memory_mib} MiB"
    yield (
        f"{measured.width}x{measured.height} of {measured.source}; backend {measured.backend}, "
        f"ready after {measured.start_s:.1f} s; took {measured.seconds:.0f} s{' (--quick)' if measured.quick else ''}"
    )
    yield ""
    yield f"{'milliseconds':<26}{'p50':>10}{'p95':>10}{'p99':>10}{'runs':>7}"
    for timing in (*measured.stages, *(cost.timing for cost in measured.matches)):
        yield row(timing.name, timing)
    yield ""
    yield f"{'cameras, as fast as it can':<26}{'fps':>10}{'work p50':>10}{'p95':>10}{'CPU ms':>10}{'MiB each':>10}"
    for run in measured.cameras:
        name = f"{run.cameras} with {run.detector}"
        times = f"{run.frame.p50_ms:>10.1f}{run.frame.p95_ms:>10.1f}{run.cpu_ms:>10.1f}"
        yield f"{name:<26}{run.fps:>10.1f}{times}{run.memory_mib:>10.0f}"
    if measured.threads:
        yield ""
        yield f"{'whole frame, by threads':<26}{'p50':>10}{'p95':>10}{'p99':>10}{'runs':>7}"
        for cost in measured.threads:
            yield row(str(cost.threads), cost.timing)
    yield ""
    yield from vitals(measured)
    for note in measured.notes:
        yield f"not measured: {note}"
    yield ""
    yield from advice.words
    if advice.settings:
        yield ""
        yield advice.fragment()


def row(name: str, timing: Timing) -> str:
    numbers = "".join(f"{value:>10}" for value in (number(timing.p50_ms), number(timing.p95_ms), number(timing.p99_ms)))
    return f"{name:<26}{numbers}{timing.runs:>7}"


def number(milliseconds: float) -> str:
    return f"{milliseconds:.3f}" if milliseconds < 1 else f"{milliseconds:.1f}"


def vitals(measured: Measured) -> Iterator[str]:
    found = measured.vitals
    hottest, watts = found.hottest_c, found.watts
    yield f"temperature: {'this board does not tell' if hottest is None else f'{hottest:.1f} °C at most'}"
    slowed = "; ".join(found.throttled) or ("nothing slowed it down" if found.throttling_known else "it does not tell")
    yield f"throttling: {slowed}"
    yield f"power: {'this board does not tell' if watts is None else f'{watts:.1f} W on average'}"
    yield f"memory: {found.memory_mib:.0f} MiB at most, of this program and the cameras' processes"
    yield f"other programs: {found.others:.0%} of the processor"
