"""What golden tests share."""

from collections.abc import Callable

import pytest
import shared_golden


@pytest.fixture
def demand_equal_at_full_size(takes_minutes, capsys) -> Callable[[str], None]:
    """Asserts all numbers of a file that the authors' code wrote at its published size."""
    return lambda name: shared_golden.demand_equal(name, capsys)
