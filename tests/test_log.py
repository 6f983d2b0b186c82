"""Every entry of experiments/LOG.md has the same four parts, and the newest stands first."""

import re
from datetime import date
from itertools import pairwise
from pathlib import Path

import pytest

LOG = Path(__file__).parents[1] / "experiments" / "LOG.md"
PARTS = ["Question", "Set-up", "Result", "Decision"]
ENTRY = """
## {date}: {title}

**Question.** Does it help?

**Set-up.** One core.

**Result.** It does not.

**Decision.** Not used.
"""


def day_of(title: str) -> date | None:
    """Returns the date that a title begins with; None if there is none, or nothing behind it."""
    started = re.match(r"(\d{4})-(\d\d)-(\d\d): \S", title)
    try:
        return date(*map(int, started.groups())) if started else None
    except ValueError:  # a month 13
        return None


def faults(text: str) -> list[str]:
    """Returns what is wrong with a log, a line each."""
    wrong = []
    days = []
    for entry in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, _, body = entry.partition("\n")
        # words in bold that begin a paragraph, and what follows each of them
        _, *pieces = re.split(r"^\*\*([^*\n]+)\.\*\*", body, flags=re.MULTILINE)
        names, texts = pieces[::2], pieces[1::2]
        if names != PARTS:
            wrong.append(f"{title}: it has {names}, and {PARTS} is wanted")
        empty = [name for name, one in zip(names, texts, strict=True) if not one.strip()]
        if empty:
            wrong.append(f"{title}: nothing follows {empty}")
        day = day_of(title)
        if day is None:
            wrong.append(f"{title}: it does not begin with a date and a colon")
        else:
            days.append((day, title))
    for (above, _), (below, title) in pairwise(days):
        if below > above:
            wrong.append(f"{title}: it is newer than the entry above it")
    return wrong


def test_every_entry_has_its_parts_and_the_newest_is_first():
    text = LOG.read_text(encoding="utf-8")
    assert text.count("\n## ") > 50 and not faults(text)


FIRST = ENTRY.format(date="2026-11-29", title="first")
SECOND = ENTRY.format(date="2026-11-26", title="second")


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("**Result.** It does not.\n\n", "", "it has"),
        ("**Set-up.** One core.", "Set-up: one core.", "it has"),
        ("**Result.**", "**Decision on weights.** None.\n\n**Result.**", "it has"),
        ("**Set-up.** One", "**Result.** One", "it has"),
        ("**Result.** It does not.", "**Result.**", "nothing follows"),
        ("2026-11-26: ", "26 November: ", "does not begin with a date"),
        ("2026-11-26: ", "2026-13-26: ", "does not begin with a date"),
        ("2026-11-26: ", "2026-11-26 ", "does not begin with a date"),
        ("2026-11-26: ", "2026-11-30: ", "newer than the entry above"),
    ],
)
def test_what_is_wrong_with_an_entry_is_named(before, after, fault):
    assert not faults(FIRST + SECOND)
    (said,) = faults(FIRST + SECOND.replace(before, after))
    assert fault in said
