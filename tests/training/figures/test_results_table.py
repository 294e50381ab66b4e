"""One table of results in which no protocol hides: strict and lenient apart, selection and leaks marked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_sdk.errors import ResultsError
from edge_sdk.training.figures.table import (
    BEGIN,
    END,
    PublishedRow,
    load_rows,
    published_rows,
    renew_block,
    results_markdown,
)

ROW: dict[str, Any] = {
    "recipe": "film",
    "size": "small",
    "corpus": "sprsound",
    "protocol": "sprsound train → val, fixed epochs, strict",
    "score": 0.8123,
    "score_ci": [0.75, 0.86],
    "auroc": 0.95,
    "auroc_ci": [0.93, 0.97],
    "ece": 0.031,
    "parameters": 123456,
    "minutes": 4.25,
    "ms": 1.5,
    "command": "stetho train film",
    "seed": 0,
}


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"rows": rows}))
    return path


def tables(markdown: str) -> list[list[str]]:
    """Lines of each Markdown table."""
    found: list[list[str]] = [[]]
    for line in markdown.splitlines():
        if line.startswith("|"):
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


def test_a_row_shows_figures_intervals_and_protocol(tmp_path: Path) -> None:
    text = results_markdown(load_rows(written(tmp_path / "r.json", ROW)), [])
    line = tables(text)[0][2]
    for part in (
        "film",
        "0.812 (0.750–0.860)",
        "0.950 (0.930–0.970)",
        "0.031",
        "123,456",
        "4.2",
        "1.50",
        ROW["protocol"],
    ):
        assert part in line
    assert "`stetho train film`" in text


def test_strict_and_lenient_never_share_a_table(tmp_path: Path) -> None:
    lenient = ROW | {"metric": "lenient", "protocol": "sprsound train → val, fixed epochs, lenient", "score": 0.9}
    rows = load_rows(written(tmp_path / "r.json", ROW, lenient))
    text = results_markdown(rows)
    for table in tables(text):
        column = [cell.strip() for cell in table[0].split("|")].index("protocol")
        protocols = [line.split("|")[column] for line in table[2:]]
        kinds = {next(kind for kind in ("strict", "lenient", "native 2-class") if kind in cell) for cell in protocols}
        assert len(kinds) == 1
        assert kinds.pop() in table[0] or "native" in table[0]
    assert "0.812" in tables(text)[0][2] and "0.900" in tables(text)[1][2]


def test_selection_on_test_and_leaks_are_marked_wherever_they_stand(tmp_path: Path) -> None:
    marked = ROW | {"selected_on_test": True, "leaky": True, "seed": [0, 1, 2], "score_sd": 0.01}
    text = results_markdown(load_rows(written(tmp_path / "r.json", ROW, marked)), [])
    honest, suspect = sorted(tables(text)[0][2:], key=lambda line: "†" in line)
    assert "†" not in honest and "‡" not in honest
    assert "0.812 ± 0.010 (0.750–0.860) †‡" in suspect
    assert "0, 1, 2" in suspect
    assert "† selected on test" in text and "‡ leaky split" in text


@pytest.mark.parametrize(
    "broken",
    [
        {"protocol": "sprsound train → val, lenient"},  # metric strict
        {"metric": "lenient"},  # protocol strict
        {"protocol": " "},
        {"scores": 1},
        {"metric": "generous"},
    ],
)
def test_a_row_that_hides_its_protocol_is_refused(tmp_path: Path, broken: dict[str, Any]) -> None:
    with pytest.raises(ResultsError, match=r"r\.json"):
        load_rows(written(tmp_path / "r.json", ROW | broken))


def test_published_figures_keep_their_arithmetic_and_their_marks() -> None:
    rows = published_rows()
    for row in rows:
        if row.specificity is not None and row.sensitivity is not None and row.system != "TAFiLM":
            assert (row.specificity + row.sensitivity) / 2 == pytest.approx(row.score, abs=0.0101), row
    by_name = {(row.system, row.metric): row for row in rows}
    assert by_name["ADD, AST", "strict"].leaky and by_name["MVST", "strict"].leaky
    assert by_name["AST + SAM + weighted sampling", "lenient"].selected_on_test
    assert ("AST + SAM + weighted sampling", "strict") not in by_name
    text = results_markdown([])
    for table in tables(text):
        assert len({"leaky" in line for line in table[:1]}) == 1
        assert len({"‡" in line for line in table[2:]}) == 1
        assert all(any(word in line for word in ("selected on test", "not stated")) for line in table[2:])


def test_only_the_marked_block_of_a_readme_is_renewed(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    renew_block(readme, results_markdown([], [PublishedRow(system="x", metric="strict", split="official", score=1.0)]))
    text = readme.read_text()
    assert text.startswith(f"before\n{BEGIN}\n") and text.endswith(f"\n{END}\nafter\n")
    assert "old" not in text and "| x |" in text
    (tmp_path / "bare.md").write_text("nothing here")
    with pytest.raises(ResultsError, match="training-table"):
        renew_block(tmp_path / "bare.md", "x")
