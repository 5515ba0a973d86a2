"""Accounts of data sets: every image found is used or left out for a reason."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dsmi_zoo.data_catalog.datasets.base import NOTHING_LEFT_OUT, Account
from dsmi_zoo.data_catalog.datasets.registry import open_dataset
from dsmi_zoo.data_catalog.datasets.subset import select_subset


@given(st.lists(st.lists(st.text(max_size=5), max_size=8), max_size=5), st.integers(0, 10**6))
def test_found_is_used_plus_left_out_by_reason(parts: list[list[str]], used: int) -> None:
    account = NOTHING_LEFT_OUT
    for number, names in enumerate(parts):
        account = account.leaving_out(f"of reason {number}", names)
    left_out = sum(len(names) for names in parts)
    assert account.balance(used).startswith(f"{used + left_out:,} found = ")
    assert sum(part.count for part in account.left_out) == left_out
    assert Account.model_validate_json(account.model_dump_json()) == account


def test_what_the_settings_leave_out_is_counted_apart_from_accidents() -> None:
    images = open_dataset("digits")
    account = select_subset(images, classes=[1, 2], images_per_class=10).account
    others = int((~np.isin(images.labels, [1, 2])).sum())
    assert [(part.count, part.by_choice) for part in account.left_out] == [
        (others, True),
        (len(images.labels) - others - 20, True),
    ]
    assert account.is_all_by_choice
    assert not account.leaving_out("that cannot be decoded", ["a.png"]).is_all_by_choice
