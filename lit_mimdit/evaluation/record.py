"""Records what is known of each image, as it is computed.

A run that was killed goes on where it stopped.

`record.jsonl`: a header line with the settings, then one line an image and version. `features.f32`:
Inception features, 2048 float32 a row. A line names its row, and the row is written first. So a
line never names what is not there.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lit_mimdit.evaluation.fid import FEATURES

FORMAT = "lit_mimdit.evaluation.1"
RECORD, ROWS = "record.jsonl", "features.f32"


@dataclass
class ImageScores:
    """Scores of one version of one image.

    Args:
        id: name of the image in its data set.
        version: which image was scored, such as `restored`, `degraded` or `reference`.
        dataset: name of its data set; empty where there is one only.
        degradation: degradation of the image.
        height: height of the image, pixels.
        width: width of the image, pixels.
        scores: finite values by metric key.
        errors: why a metric has no value, by key. The key is `file` if the image could not be read.
        tiles: number of tiles by metric key, where there was more than one.
        feature: row of its Inception features in features.f32; `null` without.
    """

    id: str
    version: str
    dataset: str
    degradation: str
    height: int
    width: int
    scores: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    tiles: dict[str, int] = field(default_factory=dict)
    feature: int | None = None


class Record:
    """An append-only record in a folder; `rows` holds what it has.

    Args:
        folder: made if it does not exist.
        settings: everything the numbers depend on. A record of other settings is refused.
        restart: begin anew, whatever is there.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], restart: bool = False) -> None:
        self.path, self.features_path = folder / RECORD, folder / ROWS
        folder.mkdir(parents=True, exist_ok=True)
        if restart:
            self.path.unlink(missing_ok=True)
        header = {"format": FORMAT, "settings": settings}
        self.rows: dict[tuple[str, str], ImageScores] = {}
        text = self.path.read_bytes() if self.path.is_file() else b""
        whole = text[: text.rfind(b"\n") + 1]  # a kill may leave half a line
        if whole:
            first, *lines = whole.decode().splitlines()
            self._require_same(json.loads(first), header)
            for line in lines:
                self._remember(ImageScores(**json.loads(line)))
        else:
            self.features_path.unlink(missing_ok=True)
        self._file = open(self.path, "ab")  # noqa: SIM115
        self._file.truncate(len(whole))
        self._features = open(self.features_path, "ab")  # noqa: SIM115
        used = 1 + max(
            (row.feature for row in self.rows.values() if row.feature is not None), default=-1
        )
        self._features.truncate(used * FEATURES * 4)
        self._next_feature = used
        if not whole:
            self._line(header)

    def _require_same(self, there: dict[str, Any], wanted: dict[str, Any]) -> None:
        if there == wanted:
            return
        old, new = there.get("settings", {}), wanted["settings"]
        keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key)) or [
            "format"
        ]
        raise ValueError(
            f"{self.path}: made with another {', '.join(keys)}; give another --output, or --restart"
            " to replace it"
        )

    def _remember(self, row: ImageScores) -> None:
        self.rows[row.id, row.version] = row

    def _line(self, value: dict[str, Any]) -> None:
        self._file.write(json.dumps(value, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def done(self, id: str, version: str) -> bool:
        """Returns whether an image's version is there and without errors: what failed is tried
        again.
        """
        row = self.rows.get((id, version))
        return row is not None and not row.errors

    def add(self, row: ImageScores, feature: np.ndarray | None = None) -> None:
        """Append a row, with its (2048,) features if there are any."""
        if feature is not None:
            self._features.write(feature.astype("<f4").tobytes())
            self._features.flush()
            row.feature = self._next_feature
            self._next_feature += 1
        self._line(asdict(row))
        self._remember(row)

    def features(self) -> np.ndarray:
        """Returns all features, (rows, 2048) float32."""
        self._features.flush()
        return np.fromfile(self.features_path, dtype="<f4").reshape(-1, FEATURES)

    def close(self) -> None:
        self._file.close()
        self._features.close()
