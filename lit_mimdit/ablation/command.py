"""`python -m lit_mimdit ablate` trains variants x seeds, each in a process of its own.

One table says what their differences prove.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from tqdm import tqdm

from lit_mimdit.ablation.result_files import (
    CSV,
    CURVES,
    LATEX,
    MARKDOWN,
    PLOT,
    beside_paper,
    overview,
    write_results,
)
from lit_mimdit.ablation.results import read_runs
from lit_mimdit.ablation.runs import Run, all_runs, freeze, require_images
from lit_mimdit.ablation.study import Study, read_study, with_tests_of
from lit_mimdit.evaluation.tables import markdown

LOG, START = "log.txt", "# started"


def ablate(
    *,
    config: Path,
    output: Path,
    jobs: int = 1,
    threads: int = 1,
    only: list[str] | None = None,
    test_root: Path | None = None,
) -> int:
    """Train and test all variants of a study with all its seeds, and write one table of paired
    differences to the full model.

    The same command goes on where it was killed, by run and, inside a run, by checkpoint. A run
    that fails is named; the others go on. A study file names the base experiment, the lines in
    which each variant differs, seeds, budget and metrics, such as experiments/ablations/nano.yaml.
    A variant may be another system, and every run may get equal time instead of equal steps, as in
    experiments/systems/league.yaml.

    Args:
        config: Study file.
        output: Folder for runs and results: results.csv, results.md, results.tex, results.svg and
            results.png.
        jobs: Runs at the same time, each a process.
        threads: CPU threads of each process.
        only: Variants to run now, beside the full model. The tables show what is there.
        test_root: Test on the tree in this folder instead of the study's, such as one that
            `sample-data --photos` has written from your own photographs. Its test.txt counts.

    Returns:
        0, or 1 if any run failed.
    """
    for key, value in {"jobs": jobs, "threads": threads}.items():
        if value < 1:
            raise ValueError(f"{key} is {value}: it must be at least 1")
    study = read_study(config)
    if test_root is not None:
        study = with_tests_of(study, test_root)
    if wrong := [name for name in only or [] if name not in study.variants]:
        raise ValueError(
            f"only: {config} has no variant {wrong[0]!r}; it has {', '.join(study.variants)}"
        )
    for name, callbacks in freeze(study, config, output).items():
        print(f"{name}: runs without {', '.join(callbacks)}, which look at what it does not have")
    require_images(study, output)
    runs = all_runs(study, output)
    wanted = [run for run in runs if only is None or run.variant in (*only, study.full)]
    failed = run_all([run for run in wanted if not run.done], study, jobs, threads)
    tested = read_runs(runs)
    for name, reason in failed.items():
        print(f"error: {name}: {reason}", file=sys.stderr)
    if any(one.run.variant == study.full for one in tested):
        about = {
            "Study": config.name,
            "Base": study.base,
            "Finished runs": f"{len(tested)} of {len(runs)}",
        }
        about |= {"Failed": "; ".join(failed)} if failed else {}
        rows = write_results(study, tested, output, about)
        shown = [beside_paper(study, rows) or overview(study, rows)]
        print(
            "\n\n".join(
                f"{title}\n\n{markdown(head, body, escaped=True)}" for title, head, body in shown
            )
        )
        print(
            f"\nin {output}: {CSV}, {MARKDOWN}, {LATEX}, {PLOT}.svg, {PLOT}.png, {CURVES}.csv,"
            f" {CURVES}.png"
        )
    return 1 if failed else 0


def run_all(runs: list[Run], study: Study, jobs: int, threads: int) -> dict[str, str]:
    """Run them, `jobs` at a time, with one bar; returns what failed, by name, and why."""
    failed: dict[str, str] = {}
    waiting, active = list(runs), {}
    # loads the libraries once, and forks a process a run
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lit_mimdit.hushed", "lit_mimdit.ablation.run"])
    bar = tqdm(
        total=len(runs),
        desc="runs",
        unit="run",
        disable=not runs,
        dynamic_ncols=sys.stderr.isatty(),
    )
    with (
        bar,
        _terminated(active),
        _environment(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))),
    ):
        while waiting or active:
            while waiting and len(active) < jobs:
                run = waiting.pop(0)
                run.write_plan(study)
                process = context.Process(target=run_logged, args=(run.folder,), name=run.name)
                process.start()  # a signal may end this: only what runs can be terminated
                active[run] = process
            bar.set_postfix_str(", ".join(run.name for run in active))
            wait([process.sentinel for process in active.values()])
            ended = {run: one for run, one in active.items() if one.exitcode is not None}
            for run, process in ended.items():
                del active[run]
                if process.exitcode or not run.done:
                    failed[run.name] = reason(run, process.exitcode)
                    bar.write(f"failed: {run.name}: {failed[run.name]}", file=sys.stderr)
                bar.update()
    return failed


def run_logged(folder: Path) -> None:
    """A run in a process of its own; all it prints goes to log.txt in its folder."""
    with open(folder / LOG, "ab", buffering=0) as log:
        log.write(f"{START}\n".encode())
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), stream.fileno())
            stream.reconfigure(encoding="utf-8")  # a file holds every name, whatever the console
    # here, so that only the server loads what training needs
    from lit_mimdit.ablation.run import run

    sys.exit(run(folder))


def reason(run: Run, status: int) -> str:
    """Returns why a run failed: its last error line, or the signal that ended it, and where its log
    is.
    """
    log = run.folder / LOG
    if status < 0:
        return f"ended by signal {-status} ({log})"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    last = next((line for line in reversed(lines) if "rror: " in line or line == START), START)
    if last == START:
        return f"exit status {status} ({log})"
    return f"{last.removeprefix('error: ')} ({log})"


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables for the processes that are started meanwhile.

    The server reads how many threads it may use when it loads torch.
    """
    before = {name: os.environ.get(name) for name in values}
    os.environ |= values
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _terminated(active: dict[Run, BaseProcess]) -> Iterator[None]:
    """Whatever ends this process, but kill -9, ends those it started; they save a step first."""
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        for process in active.values():
            process.terminate()
        for process in active.values():
            process.join()
        signal.signal(signal.SIGTERM, previous)
