"""`data check` on shards: everything that is stored is looked at."""

import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_mimdit.data.check import check
from lit_mimdit.data.shards.source import ShardSource


@pytest.fixture
def copy(shard_root, tmp_path) -> Path:
    return Path(shutil.copytree(shard_root, tmp_path / "copy"))


def flip_byte(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 255
    path.write_bytes(data)


def test_whole_shards(copy, tmp_path, capsys):
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(
        json.dumps(manifest | {"failed": [["01Blur/7", "the file is empty"]]})
    )
    assert check(copy, contact_sheet=tmp_path / "sheet.png") == 0
    said = capsys.readouterr().out
    rows = {
        line.split()[0]: line.split()
        for line in said.splitlines()
        if line.startswith(("01Blur ", "05Noise", "total"))
    }
    assert rows == {
        "01Blur": ["01Blur", "5", "48x48", "(5)", "webp", "(5)", "0"],
        "05Noise": ["05Noise", "5", "48x48", "(5)", "webp", "(5)", "0"],
        "total": ["total", "10", "0"],
    }
    assert "4 shards of images" in said and "no problem(s), 10 pair(s)" in said
    assert "Left out when the shards were written:\n  01Blur/7: the file is empty" in said
    assert np.asarray(Image.open(tmp_path / "sheet.png")).std() > 10


def test_damage_is_found_and_named(copy, tmp_path, capsys):
    source = ShardSource(str(copy))
    flip_byte(copy / "shard-000000.tar", int(source._index(0).spans[0, 0, 0]) + 30)
    flip_byte(copy / "shard-000001.npz", 200)
    (copy / "shard-000002.tar").unlink()
    (copy / "shard-000009.tar").touch()
    damaged = [source.about(0).id, *(source.about(index).id for index in source.indices(2))]
    assert check(copy, contact_sheet=None) == 1 + 1 + 1 + 1 + len(damaged)
    said = capsys.readouterr().out
    assert (
        "corrupt" in said and "shard-000000.tar: its checksum differs from the manifest's" in said
    )
    assert said.count("shard-000001.npz: its checksum differs") == 1, (
        "once, not for each of its pairs"
    )
    assert (
        "shard-000002.tar: cannot be read: No such file" in said
        and "shard-000009.tar is not in the manifest" in said
    )
    assert all(f"unreadable: {id}: " in said for id in damaged)
    assert check(copy, contact_sheet=None, decode=False) == 4


def test_an_entry_of_a_tar_file_that_leads_outside_is_refused(copy, capsys):
    tar = copy / "shard-000000.tar"
    with tarfile.open(tar, "a") as archive:
        for name in ("../evil.png", "/etc/evil.png"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
        link = tarfile.TarInfo("000000/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["shards"][0] |= {
        "bytes": tar.stat().st_size,
        "sha256": hashlib.sha256(tar.read_bytes()).hexdigest(),
    }
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert check(copy, contact_sheet=None) == 3
    said = capsys.readouterr().out
    assert all(
        f"its entry {name!r} is no file inside it" in said
        for name in ("../evil.png", "/etc/evil.png", "000000/link")
    )


def test_options_of_folders_and_unfinished_shards_are_refused(copy):
    with pytest.raises(ValueError, match="holds shards, which have no option split, layout"):
        check(copy, split="test", layout="uhdll")
    (copy / "manifest.json").unlink()
    with pytest.raises(
        ValueError, match="holds unfinished shards: give the command that writes them again"
    ):
        check(copy)
