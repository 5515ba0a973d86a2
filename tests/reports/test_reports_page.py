"""The page: whole, self-contained, escaped, and right about what it could not compute."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packed_parts import unpacked
from run_records import record_of

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.pipeline.measures.catalog import UNDEFINED, format_reasons
from dsmi_zoo.pipeline.store.record import EntryRecord
from dsmi_zoo.pipeline.store.run_folder import rows_frame, write_row, write_run
from dsmi_zoo.reports import wording
from dsmi_zoo.reports.page.analysis import _rank_cell, remarks
from dsmi_zoo.reports.page.build import write_page, write_report
from dsmi_zoo.reports.page.context import _undefined
from dsmi_zoo.reports.page.provenance import mixture_warnings, provenance
from dsmi_zoo.reports.page.rendering import figure_name, markdown_text
from dsmi_zoo.reports.statistics.standing import Standing

pytestmark = pytest.mark.long

VOID = {"meta", "img", "br", "hr", "link", "input"}


def entry(i, **columns):
    """Return the row of one measured model; measures rise with accuracy."""
    noise = np.random.default_rng(i).normal(size=3)
    return {
        "model": f"net{i}.a", "architecture": f"net{i // 2}", "img_size": 32, "group": ("small", "large")[i % 2],
        "status": "ok", "n_samples": 447, "n_classes": 10, "embedding_dim": 64,
        "median_distance_over_sigma": 3.0 if i == 3 else 1.0,
        "dse_z": 4 + noise[0], "dsmi_z_y": 0.1 * i + 0.05 * noise[1], "dsmi_z_y_null": 0.01, "cse_z": 8.8,
        "sigma": 8.0, "t": 1.0, "repetitions": 5, "seed": 0, "bins": 2, "null_permutations": 10,
        "top1": 30 + 4.0 * i + noise[2], "device": "cpu", "precision": "fp32", "subset_hash": "0123abcd",
        "versions": json.dumps({"python": "3.11.2", "torch": "2.9.0"}), "row_id": f"r{i}",
    } | columns  # fmt: skip


RUN = record_of(
    *(EntryRecord(model=f"net{i}.a", img_size=32, slug=f"s{i}", row_id=f"r{i}") for i in range(12))
)


class Page(HTMLParser):
    """A page as a browser sees it: text, links, headings, open elements."""

    def __init__(self, text):
        super().__init__()
        self.links, self.tags, self.open, self.text, self.ids = [], [], [], "", set()
        self.images, self.headings = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.links += [
            attrs[name] for name in ("href", "src", "srcset", "data", "action") if name in attrs
        ]
        self.ids |= {attrs["id"]} if "id" in attrs else set()
        if tag == "img":
            self.images.append(attrs)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text += data


def report(folder, entries, run=RUN):
    """Write the report of these rows, and return its page and summary."""
    path = write_page(rows_frame(entries), run, folder)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return Page(path.read_text(encoding="utf-8")), summary


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    failed = entry(
        11,
        status="failed",
        error_type="OSError",
        error_message="<i>a | b\nc</i>",
        dsmi_z_y=None,
        top1=None,
    )
    return folder, *report(folder, [*(entry(i) for i in range(10)), failed])


def test_the_page_is_well_formed_and_leads_with_the_answer(usual):
    _, page, summary = usual
    assert page.open == []
    rho = wording.fixed(summary["correlations"]["dsmi_z_y"]["top1"]["spearman"]["value"])
    lead = (
        f"Across 10 models, DSMI(Z;Y) and top-1 accuracy correlate with Spearman’s rho = {rho} (95%"
    )
    assert lead in plain(page.text)
    assert "Of 2 scores, none orders these models better than DSMI(Z;Y)." in plain(page.text)
    assert "Within the 2 groups, rho" in plain(page.text)
    assert summary["lead"].startswith("Across 10 models")


def test_the_page_brings_all_it_needs_and_forbids_itself_the_network(usual):
    folder, page, _ = usual
    assert "link" not in page.tags
    for link in page.links:
        assert link.startswith(("#", "data:image/")) or (folder / link).exists(), link[:80]
    content = (folder / "index.html").read_text(encoding="utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', content)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'")
    assert "http" not in policy[1]
    style = re.search(r"<style>.*?</style>", content, re.DOTALL)
    assert not re.search(r"url\(|@import|https?://", style[0])


def test_links_headings_and_figures_are_accessible(usual):
    _, page, _ = usual
    assert {link[1:] for link in page.links if link.startswith("#")} <= page.ids
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(
        after <= before + 1 for before, after in zip(page.headings, page.headings[1:], strict=False)
    )
    assert len(page.images) == 4
    assert all(image["alt"] for image in page.images)


def test_the_page_has_every_table(usual):
    text = plain(usual[1].text)
    for needed in (
            "CSE(Z)", "the measure is constant", "Weighted Kendall",
            "Within groups", "small", "large", "net3.a",
            "OSError", "net10.a", "√d (8)", "447 samples of 149 images", "d" * 40, "torch 2.9.0", "0123abcd", "unknown",
        ):  # fmt: skip
        assert needed.lower() in text.lower(), needed
    page = (usual[0] / "index.html").read_text(encoding="utf-8")
    assert "off scale" in unpacked(page, "explorer-models")


def test_a_rank_has_a_range_only_where_that_says_something():
    def shown(low, high, of):
        return _rank_cell(Standing(2, (low, high), 0.1, (0.0, 0.2)), of).ci

    assert shown(1, 30, 30) == ""
    assert shown(2, 2, 30) == ""
    assert shown(1, 15, 30) == "(1 to 15)"
    assert shown(1, 16, 30) == ""


def test_each_reason_is_given_once_with_all_that_it_holds_for():
    reasons = {"A": "the measure is constant", "B": "too few rows", "C": "the measure is constant"}
    assert remarks(reasons, 5) == "A, C: the measure is constant. B: too few rows."
    assert remarks({"A": "too few rows", "B": "too few rows"}, 2) == "All: too few rows."
    assert remarks({}, 2) == ""


def test_tables_repeat_no_sentence_and_no_interval(usual):
    _, page, summary = usual
    text = plain(page.text)
    assert "not shown to beat" not in text
    assert text.count("the measure is constant") == 1 + text.count("not computed: the measure")
    low, high = summary["correlations"]["dsmi_z_y"]["top1"]["spearman"]["ci"]
    content = (usual[0] / "index.html").read_text(encoding="utf-8")
    found = re.search(r'id="explorer-settings">(.*?)</script>', content, re.DOTALL)
    settings = json.loads(found[1])
    assert settings["intervals"]["dsmi_z_y"]["top1"] == [low, high]


def test_the_same_rows_give_the_same_files(usual, tmp_path):
    folder = usual[0]
    failed = entry(
        11,
        status="failed",
        error_type="OSError",
        error_message="<i>a | b\nc</i>",
        dsmi_z_y=None,
        top1=None,
    )
    report(tmp_path, [*(entry(i) for i in range(10)), failed])
    names = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert len(names) == 4 + 2 * 4
    for name in names:
        # Bokeh gives its objects new ids on each page.
        first, second = (
            without_scripts((place / name).read_bytes()) for place in (folder, tmp_path)
        )
        assert first == second, name


def without_scripts(content):
    return re.sub(
        rb'<script.*?</script>|<div id="[0-9a-f-]{36}".*?</div>', b"", content, flags=re.DOTALL
    )


@pytest.mark.usefixtures("without_drawing")
def test_text_from_catalogues_and_errors_stays_text(tmp_path, usual):
    evil = "</script><script>alert(1)</script>"
    rows = [
        entry(i, group=("<b>g</b>", "h & i")[i % 2], own_measures="my_<u>", **{"my_<u>": float(i)})
        for i in range(6)
    ]
    rows[0]["model"], rows[1]["device"] = evil, "<em>gpu</em>"
    rows.append(entry(7, status="failed", error_type="<s>", error_message=evil))
    run = record_of(
        EntryRecord(model="<h1>gone</h1>", img_size=8, slug="s", row_id="r"), catalog=evil
    )
    page, _ = report(tmp_path, rows, run)
    assert page.open == []
    assert not {"b", "u", "s", "i", "em"} & set(page.tags)
    assert "</script><script>alert" not in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert page.tags.count("script") == usual[1].tags.count("script")
    assert page.headings.count(1) == 1
    for text in (evil, "<b>g</b>", "h & i", "my_<u>", "<em>gpu</em>", "<h1>gone</h1>"):
        assert text in page.text


@given(st.text(max_size=60))
def test_markdown_text_is_one_line_without_markup(text):
    shown = markdown_text(text)
    assert len(shown.splitlines()) <= 1
    assert "<" not in shown
    assert not re.search(r"(?<!\\)(?:\\\\)*[|`*\[\]]", re.sub(r"\\[^\w\s]", "", shown))


@given(
    st.lists(
        st.tuples(st.text(min_size=1, max_size=120), st.text(min_size=1)),
        min_size=2,
        max_size=6,
        unique=True,
    )
)
def test_figure_names_are_safe_and_different(pairs):
    names = [figure_name("scatter", *pair) for pair in pairs]
    assert all(re.fullmatch(r"[a-z0-9_-]{1,120}", name) for name in names)
    assert len(set(names)) == len(names)


def test_a_run_without_a_measured_model_says_so(tmp_path):
    rows = [
        entry(i, status="failed", error_type="OSError", error_message="no file") for i in range(3)
    ]
    for name, entries, total in (("failed", rows, 12), ("empty", [], 12)):
        page, summary = report(tmp_path / name, entries)
        assert f"None of the {total} models was measured" in page.text
        assert summary["models"] == {
            "total": total,
            "ok": 0,
            "failed": len(entries),
            "missing": total - len(entries),
        }
        assert summary["correlations"] == {}
        assert not page.images


@pytest.mark.usefixtures("without_drawing")
def test_a_run_without_accuracies_still_lists_its_measures(tmp_path):
    page, summary = report(tmp_path, [entry(i, top1=None) for i in range(4)])
    assert "no accuracy is known" in page.text
    assert summary["correlations"]["dsmi_z_y"] == {}
    assert summary["primary"] is None


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.usefixtures("without_drawing")
def test_few_models_give_a_page_without_false_precision(tmp_path, n):
    page, summary = report(tmp_path, [entry(i) for i in range(n)])
    pearson = summary["correlations"]["dsmi_z_y"]["top1"]["pearson"]
    assert (pearson["value"] is None) == (n < 3)
    assert pearson["ci"] is None
    assert ("is not computed, because" if n < 3 else "its uncertainty is unknown") in page.text


def test_what_neither_rows_nor_record_tell_is_shown_as_unknown():
    catalog = RUN.catalog.model_copy(update={"sha256": None})
    said = dict(
        provenance(rows_frame([]), RUN.model_copy(update={"catalog": catalog, "git_commit": None}))
    )
    assert {
        said[name] for name in ("Catalogue SHA-256", "Git commit", "Device", "Repetitions")
    } == {"unknown"}
    assert (said["Catalogue"], said["Kernel width sigma"]) == ("digits", "√d")
    assert (said["Images"], said["Versions"]) == (
        "447 samples of 149 images",
        "python 3.11.2; torch 2.9.0",
    )
    assert said["Started"] == "2026-01-02T03:04:05+00:00"


@pytest.mark.usefixtures("without_drawing")
def test_rows_that_do_not_match_are_warned_of(tmp_path):
    rows = [
        entry(0),
        entry(1, versions=json.dumps({"python": "3.11.2", "torch": "2.8.0"}), device="cuda"),
    ]
    warnings = mixture_warnings(rows_frame(rows))
    assert len(warnings) == 2
    assert "devices (cpu, cuda)" in warnings[0]
    assert "versions of torch (2.8.0, 2.9.0)" in warnings[1]
    assert mixture_warnings(rows_frame([entry(0), entry(1)])) == []
    page, summary = report(tmp_path, rows)
    assert warnings[0] in page.text
    assert summary["warnings"] == warnings


@pytest.mark.usefixtures("without_drawing")
def test_figures_of_an_earlier_report_go_and_no_temporary_file_stays(tmp_path):
    report(tmp_path, [entry(i) for i in range(4)])
    assert (tmp_path / "figures" / "scatter-dse_z-top1.png").is_file()
    report(tmp_path, [entry(i, dse_z=None) for i in range(4)])
    assert not list((tmp_path / "figures").glob("*dse_z*"))
    assert (tmp_path / "figures" / "scatter-dsmi_z_y-top1.svg").is_file()
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.usefixtures("without_drawing")
def test_a_report_is_built_from_the_run_directory(tmp_path):
    for i in range(6):
        write_row(tmp_path, f"s{i}", entry(i))
    write_run(tmp_path, RUN)
    path = write_report(tmp_path)
    assert path == tmp_path / "report" / "index.html"
    summary = json.loads((path.parent / "summary.json").read_text(encoding="utf-8"))
    assert summary["models"] == {"total": 12, "ok": 6, "failed": 0, "missing": 6}


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no run\.json"):
        write_report(tmp_path)


def test_a_page_opens_with_the_answer_the_forest_and_the_explorer_and_folds_the_rest(usual):
    folder = usual[0]
    content = (folder / "index.html").read_text(encoding="utf-8")
    assert content.index(
        "Of 2 scores, none orders these models better than DSMI(Z;Y)."
    ) < content.index("Across 10 models")
    folded = [
        content.index(f'<summary><h2 id="{name}">')
        for name in ("correlations", "regression", "reading")
    ]
    assert (
        content.index('alt="Correlations with top-1') < content.index('id="explore"') < min(folded)
    )
    opened = re.sub(
        r"<details.*?</details>|<script.*?</script>|<style.*?</style>", "", content, flags=re.DOTALL
    )
    assert len(re.sub(r"<[^>]*>", " ", opened).split()) < 700


@pytest.mark.usefixtures("without_drawing")
def test_the_subsets_accuracy_is_a_ceiling_and_no_rival(tmp_path):
    entries = [
        entry(i, group=None, architecture=f"net{i}", subset_top1=30 + 4 * i) for i in range(12)
    ]
    page, summary = report(tmp_path, entries)
    assert summary["correlations"]["subset_top1"]["top1"]["spearman"]["p_holm"] is None
    assert "subset_top1" not in summary["standings"]["top1"]["scores"]
    assert "subset_top1" not in summary["differences"]
    table = page.text.split("Scores and top-1 accuracy")[1].split("Choosing by a score")[0]
    assert "Subset top-1 (ceiling): accuracy itself on the subset, not a rival." in table


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0.00"),
        (22.04, "22.0"),
        (-1670.4, "−1,670"),
        (143.7, "144"),
        (1e-7, "1.00e−07"),
        (4e9, "4.00e+09"),
    ],
)
def test_numbers_keep_three_digits(value, text):
    assert wording.significant(value) == text


def test_a_negative_zero_has_no_sign():
    assert (wording.fixed(-0.001), wording.fixed(-0.014), wording.fixed(float("nan"))) == (
        "0.00",
        "−0.01",
        "–",
    )


def plain(text):
    return " ".join(text.replace("\N{NO-BREAK SPACE}", " ").split())


def test_the_page_says_why_no_row_has_an_accuracy():
    reason = "class c9 has one image (c9/1.png), an accuracy needs two images of each class"
    text = format_reasons({"probe_accuracy": reason, "centre_accuracy": reason, "gbc": "other"})
    rows = pd.DataFrame({UNDEFINED: [text] * 12})
    assert _undefined(rows) == [
        f"centre_accuracy, probe_accuracy are undefined in 12 of 12 rows: {reason}."
    ]
    rows.loc[0, UNDEFINED] = None
    assert _undefined(rows) == []
    assert _undefined(rows.drop(columns=UNDEFINED)) == []
