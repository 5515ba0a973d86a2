"""What the README says of the project is so."""

import re
from pathlib import Path

from dsmi_zoo.pipeline.schema import markdown_table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_columns_is_the_schemas() -> None:
    table = README.split("<!-- columns -->\n")[1].split("\n<!-- /columns -->")[0]
    assert table == markdown_table(), "paste the output of `python -m dsmi_zoo.pipeline.schema` into the README"


def test_files_that_it_links_to_are_there() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert links
    assert all((ROOT / link).is_file() for link in links)


def test_it_opens_with_the_two_commands() -> None:
    assert README.split("```")[1].split("\n")[1:3] == [
        line for line in README.splitlines() if line.startswith(("make run  ", "make test  "))
    ]
