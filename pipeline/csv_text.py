"""CSV for people: a spreadsheet that opens it computes nothing."""

from typing import Any

import pandas as pd

FORMULA_BEGINS = ("=", "+", "-", "@", "\t", "\r")


def csv_text(table: pd.DataFrame) -> str:
    """The table as CSV, with an apostrophe before each text that a spreadsheet would take for a formula.

    A carriage return in a text becomes a line feed: csv would leave it without quotes, and readers end the row there.
    """
    return table.rename(columns=_harmless).map(_harmless).to_csv(index=False)


def _harmless(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    apostrophe = "'" if cell.startswith(FORMULA_BEGINS) else ""
    return apostrophe + cell.replace("\r\n", "\n").replace("\r", "\n")
