"""A file with a caption an image: CSV with the columns id and caption, or JSON lines."""

import json
from collections.abc import Iterator
from pathlib import Path

from lit_mimdit import csv_file


def read_captions(path: Path) -> dict[str, str]:
    """id -> caption. ValueError with the line for anything that is not one caption an id."""
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise ValueError(
            f"prompt.captions is {str(path)!r}: give a .csv with the columns id and caption, or a"
            " .jsonl"
        )
    captions: dict[str, str] = {}
    try:
        text = csv_file.decode(path.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ValueError(
            f"prompt.captions: {path} cannot be read ({reason}); give a .csv with the columns id"
            " and caption, or a .jsonl"
        ) from error
    for line, id, caption in (
        _csv(path, text) if path.suffix.lower() == ".csv" else _json_lines(path, text)
    ):
        if not (isinstance(id, str) and id and isinstance(caption, str)):
            raise ValueError(f"{path}, line {line}: an id and a caption are needed, both text")
        if captions.setdefault(id, caption) != caption:
            raise ValueError(f"{path}, line {line}: a second caption for {id!r}; give each id once")
    if not captions:
        raise ValueError(f"{path}: no captions in it; set prompt.captions to null to do without")
    return captions


def _csv(path: Path, text: str) -> Iterator[tuple[int, str | None, str | None]]:
    (_, head), *rows = csv_file.numbered_rows(text) or [(1, [])]
    names = [name.lower() for name in head]
    if not {"id", "caption"} <= set(names):
        raise ValueError(
            f"{path}: its first line is {','.join(head)!r}; the columns id and caption are needed"
        )
    for number, row in rows:
        if len(row) > len(names):
            raise ValueError(
                f"{path}, line {number}: {len(row)} cells for {len(names)} columns; put a caption"
                " with a separator into quotes"
            )
        cells = dict(zip(names, row, strict=False))
        yield number, cells.get("id"), cells.get("caption")


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, str | None, str | None]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{path}, line {number}: not JSON ({error.msg}); write an object with id and"
                    " caption on each line"
                ) from error
            yield (
                (number, row.get("id"), row.get("caption"))
                if isinstance(row, dict)
                else (number, None, None)
            )
