"""A file with a caption an image: CSV with the columns id and caption, or JSON lines."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path


def read_captions(path: Path) -> dict[str, str]:
    """id -> caption. ValueError with the line for anything that is not one caption an id."""
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise ValueError(
            f"prompt.captions is {str(path)!r}: give a .csv with the columns id and caption, or a"
            " .jsonl"
        )
    found: dict[str, str] = {}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(
            f"prompt.captions: {path} cannot be read ({reason}); give a .csv with the columns id"
            " and caption, or a .jsonl"
        ) from error
    for line, id, caption in (
        _csv(path, text) if path.suffix.lower() == ".csv" else _json_lines(path, text)
    ):
        if not (isinstance(id, str) and id and isinstance(caption, str)):
            raise ValueError(f"{path}, line {line}: an id and a caption are needed, both text")
        if found.setdefault(id, caption) != caption:
            raise ValueError(f"{path}, line {line}: a second caption for {id!r}; give each id once")
    if not found:
        raise ValueError(f"{path}: no captions in it; set prompt.captions to null to do without")
    return found


def _csv(path: Path, text: str) -> Iterator[tuple[int, str | None, str | None]]:
    rows = csv.DictReader(text.splitlines(keepends=True))
    if not {"id", "caption"} <= set(rows.fieldnames or ()):
        raise ValueError(
            f"{path}: its first line is {','.join(rows.fieldnames or ())!r}; the columns id and"
            " caption are needed"
        )
    for row in rows:
        yield rows.line_num, row["id"], row["caption"]


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, str | None, str | None]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}: not JSON ({error.msg})") from error
            yield (
                (number, row.get("id"), row.get("caption"))
                if isinstance(row, dict)
                else (number, None, None)
            )
