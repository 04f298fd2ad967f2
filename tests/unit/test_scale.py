"""What `benchmarks/scale.py` says of its numbers, and its plots."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def markdown(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("markdown")


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("scale")


@pytest.mark.parametrize(("cost", "power"), [(lambda n: 3 * n, 1), (lambda n: 5 * n * n, 2), (lambda n: 7.0, 0)])
def test_the_power_with_which_a_cost_grows(markdown: ModuleType, cost, power: int) -> None:  # type: ignore[no-untyped-def]
    points = [(count, cost(count)) for count in (1, 10, 100, 1000)]
    assert markdown.exponent(points) == pytest.approx(power)


def test_what_one_more_costs(markdown: ModuleType) -> None:
    assert markdown.each_more([(n, 40 + 2.5 * n) for n in (0, 1, 10, 50)]) == pytest.approx(2.5)


@pytest.mark.parametrize("logarithmic", [True, False])
def test_a_plot_is_text_that_names_its_ends(markdown: ModuleType, logarithmic: bool) -> None:
    lines = {"match_us": [(10, 6.0), (1000, 12.0), (100_000, 2000.0)], "other_us": [(10, 1.0), (100_000, 1.0)]}
    plot = list(markdown.plot(lines, "templates", logarithmic=logarithmic))
    assert plot[0] == plot[-1] == "```"
    assert max(map(len, plot)) < 80
    text = "\n".join(plot)
    assert "2e+03 |" in text
    assert "100,000" in text
    assert "o match_us   x other_us" in text
    # The dearest is the highest, on the right; both lines are drawn at their ends.
    assert plot[1].rstrip().endswith("o")
    assert sum(line.count("x") for line in plot[1:-4]) == 2
    assert any("." in line.split("|")[-1] for line in plot[1:-4])


def test_a_curve_is_measured_and_shown(scale: ModuleType) -> None:
    rows = [scale.with_templates(count) for count in (10, 1000, 20_000)]
    page = "\n".join(scale.section({"templates": rows}))
    assert "### Templates" in page
    assert "| templates | match_us |" in page
    assert page.count("```") == 2
    assert all(row["match_us"] > 0 and row["add_ms"] < row["build_ms"] for row in rows[2:])
