"""A user's own measures: imported from the current directory, reimported after an edit, refused in one line."""

import hashlib
import multiprocessing
import sys
import uuid

import numpy as np
import pandas as pd
import pytest
from test_measures_registry import LABELS, Z, refused

from dsmi_zoo.pipeline.engine.row_content import measure_row
from dsmi_zoo.pipeline.measures.core.settings import MeasureSettings
from dsmi_zoo.pipeline.measures.own import load_measure
from dsmi_zoo.pipeline.plan.identity import measures_identity, row_identity


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Return a function that writes a module with a unique name into the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(source):
        name = f"own_{uuid.uuid4().hex}"
        (tmp_path / f"{name}.py").write_text(source)
        return name

    return write


SPREAD = "def spread(Z, labels):\n    return float(Z.std())\n\nwidth = 3\n"


def test_an_own_measure_is_loaded_from_the_current_directory(module, tmp_path):
    name = module(SPREAD)
    own = load_measure(f"{name}:spread", taken={"model"})
    assert own.name == "spread"
    assert own.spec == f"{name}:spread"
    assert own.function(Z, LABELS) == pytest.approx(Z.std())
    digest = hashlib.sha256((tmp_path / f"{name}.py").read_bytes()).hexdigest()
    assert own.identity == f"{name}:spread:{digest}"


def test_an_own_measure_is_loaded_in_a_spawned_process(module):
    name = module(SPREAD)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(name_in_worker, (f"{name}:spread",)) == "spread"


def name_in_worker(spec):
    sys.path[:] = [folder for folder in sys.path if folder]
    return load_measure(spec).name


@pytest.mark.parametrize(
    "spec", ["", "module", "module:", ":function", "a.b.c", "a:b:c", "a b:c", "a..b:c", "x.py:f"]
)
def test_a_malformed_spec_is_refused(spec):
    refused(f"measure {spec!r}: write it as package.module:function", load_measure, spec)


def test_an_own_measure_that_cannot_be_used_is_refused(module):
    name = module(SPREAD)
    refused(
        "no module 'no_such_module_here' is installed, or found in",
        load_measure,
        "no_such_module_here:f",
    )
    refused(f"{name} has no 'spred'; check", load_measure, f"{name}:spred")
    refused("'width' is no function", load_measure, f"{name}:width")
    refused(
        "the column 'spread' exists already; rename the function",
        load_measure,
        f"{name}:spread",
        {"spread"},
    )
    refused("the column 'dse_z' exists already", load_measure, f"{name}:dse_z")
    refused("has no file", load_measure, "sys:getsizeof")


@pytest.mark.parametrize(
    "source", ["raise RuntimeError('one\\ntwo')", "import sys; sys.exit(3)", "def f(:"]
)
def test_a_module_that_fails_when_imported_is_refused_in_one_line(module, source):
    refused("cannot import", load_measure, f"{module(source)}:f")


def test_an_own_measure_that_was_edited_is_read_anew_in_the_same_process(module, tmp_path):
    name = module(SPREAD)
    first = load_measure(f"{name}:spread")
    (tmp_path / f"{name}.py").write_text("def other(Z, labels):\n    return 7.0\n")
    assert load_measure(f"{name}:other").value(Z, LABELS) == 7
    # The old function is gone.
    refused(f"{name} has no 'spread'", load_measure, f"{name}:spread")
    (tmp_path / f"{name}.py").write_text(SPREAD.replace("std", "max"))
    again = load_measure(f"{name}:spread")
    assert again.value(Z, LABELS) == Z.max()
    assert again.identity != first.identity


def test_an_own_measure_that_another_module_had_imported_is_the_one_of_its_file(module, tmp_path):
    name = module(SPREAD)
    load_measure(f"{module(f'import {name}' + chr(10) + SPREAD)}:spread")
    (tmp_path / f"{name}.py").write_text(SPREAD.replace("std", "max"))
    assert load_measure(f"{name}:spread").value(Z, LABELS) == Z.max()


def test_what_a_module_adds_to_pythons_path_stays_for_what_it_imports_later(module, tmp_path):
    helper = f"helper_{uuid.uuid4().hex}"
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / f"{helper}.py").write_text("seven = 7")
    name = module(
        f"import sys\nsys.path.append({str(tmp_path / 'lib')!r})\n"
        f"def f(Z, labels):\n    from {helper} import seven\n    return seven\n"
    )
    assert load_measure(f"{name}:f").value(Z, LABELS) == 7
    assert sys.path.count(str(tmp_path)) == sys.path.count(str(tmp_path / "lib")) == 1


def test_a_row_is_not_measured_by_code_that_was_edited_since_its_plan(module, tmp_path):
    settings = MeasureSettings(own=(f"{module(SPREAD)}:spread",))
    samples = pd.DataFrame(
        {"label": LABELS, "number": np.arange(6), "input_cluster": np.arange(6) % 2}
    )
    row = {"embedding_id": "e", "row_id": row_identity("e", measures_identity(settings, 6))}
    measure_row(row, Z, samples, settings)
    assert row["spread"] == Z.std()
    (tmp_path / f"{settings.own[0].split(':')[0]}.py").write_text(SPREAD.replace("std", "max"))
    refused(
        "has changed since the run was planned; start the run again",
        measure_row,
        row,
        Z,
        samples,
        settings,
    )
