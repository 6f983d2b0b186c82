"""The findings of a check of a data set, and how they are printed."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from lit_mimdit.data.image_io import natural_key


@dataclass
class TypeSummary:
    """The findings about one degradation."""

    pairs: int = 0
    sizes: Counter = field(default_factory=Counter)  # (width, height) of the GT
    extensions: Counter = field(default_factory=Counter)  # "png/jpg": GT/LQ
    problems: int = 0


@dataclass
class Findings:
    """The findings about a data set."""

    title: str
    pairs: int = 0
    types: defaultdict[str, TypeSummary] = field(default_factory=lambda: defaultdict(TypeSummary))
    problems: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(
        default_factory=dict
    )  # of files: what is unusual about them, and is taken care of
    left_out: list[str] = field(
        default_factory=list
    )  # pairs that were left out when shards were written

    def add_problems(self, degradation: str, problems: list[str]) -> None:
        self.types[degradation].problems += len(problems)
        self.problems += problems


def print_findings(findings: Findings, max_listed: int) -> None:
    """A table by degradation, then every list, cut at `max_listed` lines."""
    header = ("degradation", "pairs", "sizes", "GT/LQ files", "problems")
    rows = [
        (
            name,
            str(row.pairs),
            _most_common(row.sizes, "{0[0]}x{0[1]}"),
            _most_common(row.extensions, "{0}"),
            str(row.problems),
        )
        for name, row in sorted(findings.types.items(), key=lambda item: natural_key(item[0]))
    ]
    total = ("total", str(findings.pairs), "", "", str(len(findings.problems)))
    widths = [max(len(row[i]) for row in (header, *rows, total)) for i in range(len(header))]
    rule = tuple("-" * width for width in widths)
    print(f"\n{findings.title}")
    for row in (header, rule, *rows, rule, total):
        cells = [
            cell.rjust(width) if i in (1, 4) else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ]
        print("  ".join(cells).rstrip())
    _print_list("Problems", findings.problems, max_listed)
    misnamed = sum("is a " in note for note in findings.notes.values())
    turned = sum("EXIF" in note for note in findings.notes.values())
    title = (
        f"Notes, taken care of: {misnamed} file(s) of another format than their name says, {turned}"
        " with EXIF orientation"
    )
    _print_list(
        title,
        [f"{path}: {findings.notes[path]}" for path in sorted(findings.notes, key=natural_key)],
        max_listed,
    )
    _print_list("Left out when the shards were written", findings.left_out, max_listed)
    print(f"\n{len(findings.problems) or 'no'} problem(s), {findings.pairs} pair(s)")


def _most_common(counts: Counter, form: str) -> str:
    """`1920x1080 (140), 2720x1528 (10)`, three at most."""
    shown = [f"{form.format(value)} ({count})" for value, count in counts.most_common(3)]
    return ", ".join(shown) + (f", {len(counts) - 3} more" if len(counts) > 3 else "")


def _print_list(title: str, lines: list[str], max_listed: int) -> None:
    if not lines:
        return
    print(f"\n{title}:")
    for line in lines[:max_listed]:
        print(f"  {line}")
    if len(lines) > max_listed:
        print(f"  ... and {len(lines) - max_listed} more")
