"""What the documentation names is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]


def test_each_promise_of_reliability_names_tests_that_exist() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    tables = re.findall(r"^\| promise \| test \|\n\|---\|---\|\n((?:\|.*\n)+)", page, re.MULTILINE)
    promises = [line for rows in tables for line in rows.splitlines()]
    assert len(promises) > 30
    sources = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    for promise in promises:
        what = promise.rstrip("| ").rpartition("| ")[2]
        file = ""
        named = re.findall(r"(test_\w+\.py)?(?:::(\w+))?(?:::(\w+))?`", what)
        assert any(name for name, _, _ in named), promise
        for name, *parts in named:
            file = name or file
            for part in filter(None, parts):
                assert re.search(rf"\b(def|class) {part}\b", sources[file]), f"{file} has no {part}"
        assert all(name in sources for name, _, _ in named if name), promise


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def warnings_and_errors() -> Iterator[str]:
    """The formats of all lines that the package logs at these levels."""
    for path in (ROOT / "edge_face").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name("_log" | "log"), attr="warning" | "error" | "exception"),
                    args=[ast.Constant(str() as text), *_],
                ):
                    yield text


def test_each_warning_and_error_is_explained_to_who_reads_the_log() -> None:
    tables = re.findall(r"^\| (.*?) \| ", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    told = [max(text.split("..."), key=len).strip() for cell in tables for text in re.findall(r"`([^`]+)`", cell)]
    formats = list(warnings_and_errors())
    assert len(formats) > 60
    for text in formats:
        if len(max(re.split(r"%[\d.+]*\w", text), key=len)) > 9:  # else what it says comes from elsewhere
            assert any(part in text for part in told if len(part) > 7), text
