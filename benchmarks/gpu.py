"""All that wants a GPU, in one run of less than ten minutes: conditioning, compiled steps, sparse
routing and the tests.

    python benchmarks/gpu.py -o gpu/
    python benchmarks/gpu.py -o gpu/ --tiny      # each kind of command on a CPU, small: a rehearsal

Each part is a command of its own with a limit in seconds. Its output goes to a file of the part's
name, and a part that fails or takes too long does not end the run. The last line counts them.
"""

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Part:
    """One command.

    Args:
        name: of its file.
        command: arguments of Python.
        limit: seconds.
    """

    name: str
    command: tuple[str, ...]
    limit: int


def parts(tiny: bool) -> list[Part]:
    """Returns what to run, in the order of importance; `tiny` is for a CPU, in seconds."""
    sampling = ["benchmarks/sampling.py", "--only", "MiM-DiT"]
    sparse = ["benchmarks/sparse.py"]
    if tiny:
        sampling += ["--size", "nano", "--blocks", "2", "--rounds", "1"]
        sparse += ["--rounds", "1", "--batch", "2", "--side", "4", "--width", "16", "--heads", "2"]
        sparse += ["--outer", "16"]
    else:
        sampling += ["--size", "medium", "--rounds", "5", "--device", "cuda"]
        sparse += ["--batch", "16", "--rounds", "12", "--device", "cuda", "--autocast"]
    single, batch = ("--batch", "1"), ("--batch", "8")
    cuda = ["-m", "pytest", "-q", "-n", "0", "tests/test_cuda.py"]
    limit = 130 if tiny else 60  # a CPU may be shared
    plain = [
        Part("step_batch_1", (*sampling, *single), limit),
        Part("sparse", tuple(sparse), limit),
    ]
    # the compiler alone takes a CPU a minute
    others = [
        Part("step_batch_1_compiled", (*sampling, *single, "--compile"), 150),
        Part("step_batch_8", (*sampling, *batch), 60),
        Part("step_batch_8_compiled", (*sampling, *batch, "--compile"), 120),
    ]
    return [
        *plain,
        *([] if tiny else others),
        Part("test_cuda", tuple(cuda), 280 if tiny else 140),
    ]


def run(part: Part, output: Path) -> str:
    """Runs a part, writes what it says, and returns "ok", or what was wrong."""
    command = [sys.executable, *part.command]
    with open(output / f"{part.name}.txt", "w", encoding="utf-8") as file:
        file.write(f"$ python {' '.join(part.command)}\n\n")
        file.flush()
        try:
            done = subprocess.run(
                command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, timeout=part.limit
            )
        except subprocess.TimeoutExpired:
            return f"stopped after {part.limit} s"
    return "ok" if done.returncode == 0 else f"exit status {done.returncode}"


def main(arguments: list[str] | None = None) -> int:
    """Returns how many parts were not ok."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the files")
    parser.add_argument("--tiny", action="store_true", help="small, on a CPU")
    parser.add_argument("--only", nargs="+", help="names of parts")
    args = parser.parse_args(arguments)
    chosen = [part for part in parts(args.tiny) if not args.only or part.name in args.only]
    args.output.mkdir(parents=True, exist_ok=True)
    wrong = 0
    for part in chosen:
        start = time.monotonic()
        said = run(part, args.output)
        wrong += said != "ok"
        print(f"{part.name}: {said}, {time.monotonic() - start:.0f} s", flush=True)
    print(f"{len(chosen) - wrong} of {len(chosen)} parts are ok; see {args.output}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
