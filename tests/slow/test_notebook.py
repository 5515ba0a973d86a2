"""`dsmi_zoo.run` in a real Jupyter kernel."""

import re
from pathlib import Path

import nbclient
import nbformat
import pytest

RUN = """
import logging
logging.basicConfig(level=logging.INFO)
import dsmi_zoo
rows = dsmi_zoo.run(models="test_vit.100x3", out="out", workers=1, images_per_class=20)
"""
LOOK = "type(rows).__name__, dsmi_zoo.by_name(rows).loc['test_vit.100x3@32'].status, len(rows)"


def test_a_notebook_shows_a_bar_then_the_answer_and_a_link_and_no_line_of_dask(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSMI_ZOO_CACHE", str(cache))
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(code) for code in (RUN, LOOK)]
    )
    changes: list[str] = []

    class Client(nbclient.NotebookClient):
        """A client that records each update of a display."""

        def process_message(self, message, cell, index):
            if message["msg_type"] == "update_display_data":
                changes.append(message["content"]["data"].get("text/html", ""))
            return super().process_message(message, cell, index)

    resources = {"metadata": {"path": str(tmp_path)}}
    Client(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    outputs = notebook.cells[0].outputs
    shown = [output.data.get("text/html", "") for output in outputs if "data" in output]
    log = "".join(output.text for output in outputs if output.output_type == "stream")
    counts = [
        int(n) for text in changes for n in re.findall(r'<progress value="(\d+)" max="1">', text)
    ]
    assert counts[0] == 0
    assert counts[-1] == 1
    assert counts == sorted(counts)
    assert all(text == "" for text in shown[:-1]), "bars vanish"
    assert "DSMI(Z;Y) and top-1 accuracy" in shown[-1]
    assert '<a href="out/report/index.html"' in shown[-1]
    assert "INFO:dsmi_zoo.jobs.runs.run:1 model to measure" in log
    assert "distributed" not in log
    assert notebook.cells[1].outputs[0].data["text/plain"] == "('DataFrame', 'ok', 1)"
