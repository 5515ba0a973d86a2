"""Exported tables and figures: they agree with the report, and other programs can read them."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from run_records import record_of

from dsmi_zoo.jobs.tools.export import What, export
from dsmi_zoo.pipeline.store.record import EntryRecord
from dsmi_zoo.pipeline.store.run_folder import read_results, rows_frame, write_row, write_run
from dsmi_zoo.reports.figures.canvas import canvas, render
from dsmi_zoo.reports.page.build import write_report
from dsmi_zoo.reports.page.export import escaped_for_latex, latex_of_correlations, latex_of_rows
from dsmi_zoo.reports.statistics.summary import summarise

MODELS = 12


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of twelve rows, one failed, one named with special characters of LaTeX, CSV and HTML."""
    folder = tmp_path_factory.mktemp("export") / "run"
    rng = np.random.default_rng(0)
    names = ['a_"50%"&{x},$1#', *(f"net{i}" for i in range(1, MODELS))]
    entries = [
        EntryRecord(model=name, img_size=32, slug=f"e{i}", row_id=f"r{i}")
        for i, name in enumerate(names)
    ]
    write_run(folder, record_of(*entries))
    for i, one in enumerate(entries):
        row = {
            "model": one.model, "img_size": 32, "row_id": one.row_id, "status": "ok", "embedding_id": "e",
            "architecture": one.model, "top1": 50 + 3.0 * i, "dsmi_z_y": i + rng.random(), "versions": "{}",
            "dse_z": rng.random(), "own_measures": "my_score", "my_score": -i + 5 * rng.random(),
        }  # fmt: skip
        if i == MODELS - 1:
            row |= {"status": "failed", "error_type": "E", "error_message": "m"}
        write_row(folder, one.slug, row)
    return folder


@pytest.fixture(scope="module")
def report(out: Path) -> Path:
    return write_report(out).parent


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_rows_are_exported_as_they_are_read_from_python(
    out: Path, tmp_path: Path, suffix: str
) -> None:
    to = tmp_path / f"rows.{suffix}"
    assert export(out, to) == 0
    rows = pd.read_csv(to) if suffix == "csv" else pd.read_parquet(to)
    expected = read_results(out)
    assert list(rows.columns) == list(expected.columns)
    assert rows["model"].tolist() == expected["model"].tolist()
    for name in ("top1", "dsmi_z_y", "my_score"):
        np.testing.assert_array_equal(rows[name], expected[name])


@pytest.mark.usefixtures("without_drawing")
def test_correlations_are_those_of_the_summary(out: Path, report: Path, tmp_path: Path) -> None:
    export(out, tmp_path / "c.csv", "correlations")
    export(out, tmp_path / "c.parquet", "correlations")
    table = pd.read_csv(tmp_path / "c.csv")
    summary = json.loads((report / "summary.json").read_text())
    assert set(table["score"]) == set(summary["correlations"])
    for row in table.to_dict("records"):
        of_page = summary["correlations"][row["score"]][row["target"]]
        assert row["n"] == of_page["n"]
        for name in ("spearman", "pearson", "kendall", "weighted_kendall"):
            ends = of_page[name]["ci"] or [np.nan, np.nan]
            expected = [of_page[name]["value"], *ends]
            found = [row[name], row[f"{name}_low"], row[f"{name}_high"]]
            np.testing.assert_array_equal(found, np.array(expected, dtype=float))
        standing = summary["standings"][row["target"]]["scores"].get(row["score"])
        ranks = [row["rank"], row["rank_low"], row["rank_high"]]
        if standing is None:
            assert np.isnan(ranks).all()
            assert row["reason"]
        else:
            assert ranks == [standing["rank"], *standing["ranks"]]
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "c.parquet"), table, check_dtype=False)


def test_the_page_links_to_the_same_correlations(out: Path, report: Path, tmp_path: Path) -> None:
    page = (report / "index.html").read_text()
    for suffix in ("csv", "tex"):
        export(out, tmp_path / f"c.{suffix}", "correlations")
        assert f'href="correlations.{suffix}"' in page
        assert (report / f"correlations.{suffix}").read_bytes() == (
            tmp_path / f"c.{suffix}"
        ).read_bytes()


@pytest.mark.parametrize("what", ["rows", "correlations"])
def test_latex_tables_are_whole_and_show_names_literally(
    out: Path, tmp_path: Path, what: What
) -> None:
    export(out, tmp_path / "t.tex", what)
    text = (tmp_path / "t.tex").read_text()
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
    columns = len(re.findall("[lr]", text.split(r"\begin{tabular}{")[1].split("}")[0]))
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {columns}
    assert len(lines) == {"rows": MODELS, "correlations": 3 + 1}[what]
    assert r"my\_score" in text
    if what == "rows":
        assert r"a\_\textquotedbl{}50\%\textquotedbl{}\&\{x\},\$1\#" in text


def test_every_character_that_latex_reads_as_a_command_is_escaped() -> None:
    assert escaped_for_latex(r"\ & % $ # _ { } ~ ^") == (
        r"\textbackslash{} \& \% \$ \# \_ \{ \} \textasciitilde{} \textasciicircum{}"
    )
    assert escaped_for_latex("[b] −0.5\n–") == "{[b] $-$0.5 --}"


def test_the_table_of_correlations_says_which_p_are_corrected() -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"model": f"m{i}", "architecture": f"m{i}", "img_size": 32, "status": "ok", "row_id": str(i),
         "top1": 50.0 + i, "dsmi_z_y": i + 5 * rng.random(), "dse_z": rng.random()}
        for i in range(12)
    ]  # fmt: skip
    text = latex_of_correlations(summarise(rows_frame(rows)))
    shown = text.split(r"\end{tabular}")[1]
    assert r"{\footnotesize p of DSMI(Z;Y), the hypothesis, is uncorrected; " in shown
    assert "the others are corrected over scores and accuracies (Holm)." in shown
    assert r"$|\rho|$ minus that of DSMI(Z;Y)" in text
    assert "textbar" not in text


def test_what_rounding_left_of_zero_is_zero_in_a_table_of_rows() -> None:
    rows = [
        {"model": f"m{i}", "img_size": 32, "status": "ok", "row_id": str(i), "top1": 50.0 + i,
         "dsmi_z_y": (-8.75e-18, 0.5, 1.0)[i], "own_measures": "tiny", "tiny": (i + 1) * 1e-20}
        for i in range(3)
    ]  # fmt: skip
    first = latex_of_rows(rows_frame(rows))[0].split("\\midrule\n")[1].splitlines()[0]
    assert " 0.00 " in first
    assert "e-18" not in first
    assert "1.00e" in first


def test_figures_are_exported_as_vectors_too(out: Path, report: Path, tmp_path: Path) -> None:
    export(out, tmp_path / "figures", "figures")
    first = {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    drawn = {path.name for path in (report / "figures").iterdir()}
    assert drawn < set(first)
    pdfs = {name: content for name, content in first.items() if name.endswith(".pdf")}
    assert {Path(name).stem for name in pdfs} == {Path(name).stem for name in drawn}
    assert all(content.startswith(b"%PDF") for content in pdfs.values())
    assert not any(b"CreationDate" in content for content in pdfs.values())


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("--to rows.xlsx", "--to rows.xlsx: a table's name ends in .csv, .parquet, .tex"),
        ("--to f.pdf --what figures", "figures are several files; name a folder for them"),
        ("--to rows.csv --what scores", "'scores' is not one of 'rows', 'correlations', 'figures'"),
        ("--to folder.csv", "folder.csv is a folder where a file belongs"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_line(
    out: Path, tmp_path: Path, refused: Callable[[str, Path], str], arguments: str, line: str
) -> None:
    (tmp_path / "folder.csv").mkdir()
    said = refused(f"export --out {out} {arguments}", tmp_path)
    assert line in said
    assert said.count("\n") == 1


def test_a_run_without_accuracies_or_rows_says_that_there_is_nothing_to_export(
    tmp_path: Path, refused: Callable[[str, Path], str]
) -> None:
    write_run(tmp_path / "run", record_of())
    assert "has no row yet" in refused("export --out run --to r.csv", tmp_path)
    said = refused("export --out run --to c.csv --what correlations", tmp_path)
    assert "no accuracy of its models is known" in said
    assert not (tmp_path / "c.csv").exists()


def test_the_same_drawing_gives_the_same_bytes_of_pdf() -> None:
    def drawn() -> bytes:
        figure, axes = canvas(4, 3)
        axes.plot([0, 1], [1, 3])
        return render(figure, "").pdf()

    assert drawn() == drawn()
