"""Pairs of other data sets that `test` evaluates beside one's own."""

from dataclasses import replace

from lit_mimdit.data.layouts import DATASETS, Pair, read_layout, require_complete


def benchmark_pairs(benchmarks: dict[str, str | dict[str, str]]) -> list[Pair]:
    """Returns the pairs of all benchmarks, with their data set's name.

    Args:
        benchmarks: of each layout its root, or {root: ...} with the options of the layout.

    Raises ValueError for an unknown layout, no root, or files that are missing or unpaired.
    """
    named: list[Pair] = []
    for layout, place in benchmarks.items():
        options = {"root": place} if isinstance(place, str) else dict(place)
        if layout not in DATASETS or "root" not in options:
            raise ValueError(
                f"data.benchmarks: {layout!r} needs a layout of {', '.join(DATASETS)} and a"
                f" root, got {place!r}"
            )
        pairs = require_complete(read_layout(layout, options.pop("root"), **options))
        named += [
            replace(pair, dataset=DATASETS[layout], id=f"{DATASETS[layout]}/{pair.id}")
            for pair in pairs
        ]
    return named
