"""Shards of latents that are made of other shards, pair by pair and in the same order."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lit_mimdit.data.image_io import ImageError
from lit_mimdit.data.shards.jobs import finish, start
from lit_mimdit.data.shards.source import ShardSource
from lit_mimdit.data.shards.writer import Member, ShardWriter, read_done
from lit_mimdit.data.tiles import Region

# height and width of a pair, and the members of each of its tiles
Made = tuple[int, int, list[tuple[Region, list[Member]]]]


def derive(
    source: ShardSource,
    folder: Path,
    settings: dict[str, Any],
    made: Callable[[int], Made],
    doing: str,
) -> None:
    """Write a folder of shards of latents, or go on where the same command was stopped.

    Args:
        source: the shards that they are made of.
        folder: made if it does not exist.
        settings: of the command. A folder of other settings is refused.
        made: what becomes of the pair of an index. An ImageError leaves the pair its place, without
            tiles, so that training draws the same stand-in as from the source.
        doing: what the progress bar says.
    """
    manifest = source.manifest
    start(folder, settings, [(shard.name, shard.sha256) for shard in manifest.shards])
    failed: list[tuple[str, str]] = []
    with tqdm(total=len(source), unit="pair", desc=doing, dynamic_ncols=True) as bar:
        for number, shard in enumerate(manifest.shards):
            if read_done(folder, number) is None:
                _write(folder, number, source, made, bar)
            else:
                bar.update(len(shard))
            failed += read_done(folder, number)[2]
    finish(folder, "latents", settings, manifest.degradations, len(manifest.shards), failed)


def _write(
    folder: Path, number: int, source: ShardSource, made: Callable[[int], Made], bar: tqdm
) -> None:
    """One shard, of the source's shard of the same number."""
    with ShardWriter(folder, number) as writer:
        for index in source.indices(number):
            pair = source.about(index)
            try:
                writer.add(pair, *made(index))
            except ImageError as error:
                writer.add(pair, 0, 0, [])
                writer.failed.append((pair.id, str(error)))
            bar.update()
