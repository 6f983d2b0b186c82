"""Batches of neighbours that are alike."""

import pytest

from lit_mimdit.data.alike import alike


@pytest.mark.parametrize(
    ("items", "limit", "batches"),
    [
        ("", 2, []),
        ("aaaaa", 2, ["aa", "aa", "a"]),
        ("abba", 2, ["a", "bb", "a"]),  # the order stays, so one kind may come again
        ("Aab", 3, ["Aa", "b"]),
        ("abc", 1, ["a", "b", "c"]),
    ],
)
def test_neighbours_of_one_kind_come_together(items, limit, batches):
    assert ["".join(batch) for batch in alike(items, limit, str.lower)] == batches
