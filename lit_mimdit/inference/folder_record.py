"""Records what has been restored into a folder.

So a second call goes on, and nothing foreign is replaced.

`restoration.json` tells it when a call is over. While one is under way, a hidden journal gets a
line before each image is written. So a kill at any moment loses no knowledge of what is ours. An
image is ours while its SHA-256 is the recorded one.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from lit_mimdit.files import FileError, write_bytes
from lit_mimdit.inference.run_record import FORMAT, NAME, file_hash, read_record, runs_of

JOURNAL = ".restoration.jsonl"
# what moves the last digits of a restored image only
_PASSING = ("commit", "device", "torch")


class FolderRecord:
    """The record of the folder that a call restores into.

    Args:
        folder: may not exist yet.
        run: what `describe_run` tells of this call.

    Raises:
        ValueError: the folder's record is of another kind.
    """

    def __init__(self, folder: Path, run: dict[str, Any]) -> None:
        self.folder, self.run = folder, json.loads(json.dumps(run))
        self.entries = _entries(folder)
        self._begun = False

    def is_ours(self, target: Path) -> bool:
        """Returns whether a file of the folder is as a call wrote it."""
        entry = self.entries.get(self._name(target))
        return entry is not None and target.is_file() and _unchanged(target, entry)

    def is_finished(self, source: Path, target: Path) -> bool:
        """Returns whether this file, with these settings, has been restored already."""
        if not self.is_ours(target):
            return False
        entry = self.entries[self._name(target)]
        return _decides(entry["run"]) == _decides(self.run) and entry.get(
            "source_sha256"
        ) == file_hash(source)

    def write(self, source: Path, target: Path, data: bytes, inter: list[list[float]]) -> None:
        """Writes an image, noted before it exists. Raises `FileError` if either cannot be done."""
        name = self._name(target)
        entry = {
            "source": str(source),
            "source_sha256": file_hash(source),
            "sha256": hashlib.sha256(data).hexdigest(),
            "inter": inter,
        }
        lines = [] if self._begun else [{"run": self.run}]
        lines.append({"name": name} | entry)
        try:
            with open(self.folder / JOURNAL, "a", encoding="utf-8") as file:
                # a line break first: the last line of a killed call may be half a line
                file.write("".join("\n" + json.dumps(line) for line in lines))
        except OSError as error:
            raise FileError(
                f"{self.folder / JOURNAL}: cannot be written: {error.strerror}"
            ) from error
        self._begun = True
        write_bytes(target, data)
        self.entries[name] = entry | {"run": self.run}

    def close(self) -> None:
        """Writes `restoration.json` of all calls, and removes the journal."""
        entries = {
            name: entry for name, entry in self.entries.items() if (self.folder / name).is_file()
        }
        if not entries or not (self._begun or (self.folder / JOURNAL).exists()):
            return
        runs: list[dict[str, Any]] = []
        for entry in entries.values():
            runs += [entry["run"]] if entry["run"] not in runs else []
        values: dict[str, Any] = (
            dict(runs[0]) if len(runs) == 1 else {"format": FORMAT, "mixed": runs}
        )
        values["images"] = {name: entry["inter"] for name, entry in entries.items()}
        values["files"] = {}
        for name, entry in entries.items():
            kept = {key: value for key, value in entry.items() if key not in ("run", "inter")}
            number = {} if len(runs) == 1 else {"run": runs.index(entry["run"])}
            values["files"][name] = kept | number
        write_bytes(self.folder / NAME, (json.dumps(values, indent=1) + "\n").encode())
        (self.folder / JOURNAL).unlink(missing_ok=True)

    def _name(self, target: Path) -> str:
        return target.relative_to(self.folder).as_posix()


def own_images(folder: Path, with_itself: bool) -> set[Path]:
    """Returns the images below a folder that calls of restore wrote, and nobody changed since.

    Args:
        folder: whose subfolders may have records.
        with_itself: whether its own record counts, too.
    """
    folders: set[Path] = set()
    places = {path.parent for name in (NAME, JOURNAL) for path in folder.rglob(name)}
    for place in places:
        if place != folder or with_itself:
            folders |= {
                place / name
                for name, entry in _entries(place).items()
                if (place / name).is_file() and _unchanged(place / name, entry)
            }
    return folders


def _entries(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns what record and journal of a folder tell of each image, by its name."""
    entries: dict[str, dict[str, Any]] = {}
    record = read_record(folder)
    if record is not None:
        runs, files = runs_of(record), record.get("files", {})
        for name, inter in record["images"].items():
            entry = dict(files.get(name, {}))
            entries[name] = entry | {"inter": inter, "run": runs[entry.get("run", 0)]}
    journal = folder / JOURNAL
    run: dict[str, Any] = {}
    for text in journal.read_text(encoding="utf-8").splitlines() if journal.is_file() else ():
        try:
            line = json.loads(text)
        except ValueError:  # cut off by a kill: its image was not written
            continue
        if "name" in line:
            entries[line.pop("name")] = line | {"run": run}
        else:
            run = line["run"]
    return entries


def _unchanged(path: Path, entry: dict[str, Any]) -> bool:
    # records of the first versions hold no hashes
    return "sha256" not in entry or file_hash(path) == entry["sha256"]


def _decides(run: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in run.items() if name not in _PASSING}
