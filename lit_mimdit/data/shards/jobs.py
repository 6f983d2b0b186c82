"""Many shards are written in parallel, by a plan that an interrupted run goes on with.

Each shard is one job of one process.
"""

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

from tqdm import tqdm

from lit_mimdit.data.quarantine import write_quarantine
from lit_mimdit.data.shards.manifest import MANIFEST, PLAN, QUARANTINE, Manifest, sha256
from lit_mimdit.data.shards.writer import read_done
from lit_mimdit.files import write_bytes


def start(folder: Path, settings: dict[str, Any], pairs: list[tuple[str, ...]]) -> None:
    """Write down the plan of a run, or see that it equals the plan of an interrupted one."""
    plan = settings | {"pairs": len(pairs), "pairs_sha256": sha256(json.dumps(pairs).encode())}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PLAN
    if path.is_file():
        old = json.loads(path.read_text(encoding="utf-8"))
        different = sorted(key for key in plan.keys() | old.keys() if plan.get(key) != old.get(key))
        if different:
            raise ValueError(
                f"{folder} holds shards of other settings ({', '.join(different)} differ): give the"
                f" settings of {path}, or another folder"
            )
        for part in folder.glob(".*.part"):
            part.unlink()
    elif any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty and holds no shards: give another folder")
    else:
        write_bytes(path, json.dumps(plan, indent=1).encode())


def run_jobs(
    folder: Path,
    write: Callable[..., None],
    jobs: dict[int, Any],
    total: int,
    workers: int,
    max_broken: float,
) -> list[tuple[str, str]]:
    """Write the shards that are missing, in parallel; returns (id, reason) of every pair that was
    left out.
    """
    failed: list[tuple[str, str]] = []
    before = 0
    missing = dict(jobs)
    for number in jobs:
        done = read_done(folder, number)
        if done is not None:
            missing.pop(number)
            failed += done[2]
            before += len(done[1]) + len(done[2])
    with tqdm(total=total, initial=before, unit="pair", desc="sharding", dynamic_ncols=True) as bar:
        for faults, done in _results(folder, write, missing, workers):
            failed += faults
            bar.update(before + done - bar.n)
            bar.set_postfix(broken=len(failed), refresh=False)
            _refuse_too_many(failed, total, max_broken)
    _refuse_too_many(failed, total, max_broken)
    return failed


def _results(
    folder: Path, write: Callable[..., None], missing: dict[int, Any], workers: int
) -> Iterator[tuple[list[tuple[str, str]], int]]:
    """(what was left out of shards that just ended, pairs done so far), several times a second."""
    if workers == 1:
        counter = SimpleNamespace(value=0, get_lock=nullcontext)
        _start_worker(counter, alone=True)
        for number, job in missing.items():
            yield _work(folder, write, number, job), counter.value
        return
    context = multiprocessing.get_context(
        "spawn"
    )  # a fork would copy the threads of torch in a locked state
    counter = context.Value("q", 0)
    pool = ProcessPoolExecutor(
        max(min(workers, len(missing)), 1), context, _start_worker, (counter,)
    )
    try:
        running: set[Future] = {
            pool.submit(_work, folder, write, number, job) for number, job in missing.items()
        }
        while running:
            ended, running = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            yield [pair for future in ended for pair in future.result()], counter.value
    except BrokenProcessPool as error:
        raise ValueError(
            "a worker process died (killed, or out of memory); the same command goes on, with fewer"
            " --workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _refuse_too_many(failed: list[tuple[str, str]], total: int, max_broken: float) -> None:
    if len(failed) > max_broken * total:
        id, reason = failed[0]
        raise ValueError(
            f"{len(failed)} of {total} pairs cannot be used, more than max_broken {max_broken:g}"
            f" (such as {id}: {reason}); look with `python -m lit_mimdit data check`, or raise"
            " --max_broken"
        )


_counter: Any = None


def _start_worker(counter: Any, alone: bool = False) -> None:
    global _counter
    _counter = counter
    if not alone:
        Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _count() -> None:
    with _counter.get_lock():
        _counter.value += 1


def _work(folder: Path, write: Callable[..., None], number: int, job: Any) -> list[tuple[str, str]]:
    write(folder, number, job, _count)
    return read_done(folder, number)[2]


def finish(
    folder: Path,
    kind: str,
    settings: dict[str, Any],
    names: list[str],
    count: int,
    failed: list[tuple[str, str]],
) -> None:
    """Write the manifest and the list of what was left out, and say what came of it."""
    shards = []
    for number in range(count):
        entry, groups, _ = read_done(folder, number)
        entry.groups = [names.index(group) for group in groups]
        shards.append(entry)
    if failed:
        write_quarantine(folder / QUARANTINE, failed)
    write_bytes(folder / MANIFEST, Manifest(kind, settings, names, shards, failed).dump())
    pairs, size = sum(map(len, shards)), sum(entry.bytes for entry in shards)
    print(
        f"{folder}: {pairs} pairs in {count} shards, {size / 1e9:.3f} GB"
        + (f"; {len(failed)} left out, see {QUARANTINE}" if failed else "")
    )
