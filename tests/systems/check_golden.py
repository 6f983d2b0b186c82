"""Recomputes a golden file of a compared system with our code and compares every number in it.

    python tests/systems/check_golden.py FILE.safetensors [--schedules schedules.json]

One line for each tensor, number or list of names: the largest difference and its tolerance. What is
an input, what of the state dict is not loaded, and what is not compared is named after that. Exit
status 1 if anything is above its tolerance, is missing, or is neither compared nor excused.

Protocol
    A golden file has tensors, and JSON under the metadata key `golden`, whose `system` says which
    file of tests/systems/golden/ knows it: the name in lower case without signs ("DA-CLIP" is
    daclip.py), or an entry of ALIASES. Without `system`, the beginning of the file's name decides.
    That file has

        def compare(golden: Golden, report: Report) -> None
        RESULTS: tuple[str, ...]   paths in the JSON that hold numbers (optional)
        TEXTS: tuple[str, ...]     paths in the JSON that hold names or texts (optional)

    `compare` accounts for every tensor, for every number below the paths in RESULTS, and for every
    list below those in TEXTS; their names are paths such as "losses/stage1/loss". For each it calls
    one of

        report.tensor(name, ours, tolerance)   largest |ours - stored| at most tolerance;
                                               near, table, float32 and taps choose the tolerance
        report.number(name, ours, relative)    |ours - stored| at most relative * |stored|
        report.same(name, ours)                a text or list of the JSON, as it is
        report.names(name, ours)               a list of names of the JSON, in any order
        report.given(name, ...)                an input of the computation, not a result
        report.loaded(names, why, prefix)      a state dict; what is not among names is listed
        report.skip(name, reason)              not compared, for a reason that is printed

    `report.value(name, ours, theirs, tolerance)` compares what stands elsewhere (schedules).
    `with report.part():` keeps what is absent from the file from ending the whole comparison.
    What remains when `compare` returns counts as a failure.
"""

import argparse
import importlib
import json
import os
import sys
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
for folder in (str(ROOT), str(HERE)):  # the package of this checkout, and golden/
    if folder not in sys.path:
        sys.path.insert(0, folder)

import torch  # noqa: E402
from golden_file import Golden, Named, at, lists, numbers  # noqa: E402
from golden_report import Report  # noqa: E402
from safetensors import safe_open  # noqa: E402

SHARED = Path(os.environ.get("LIT_MIMDIT_SHARED", ROOT.parent / "shared")) / "systems"


def read(path: Path, schedules: Path | None = None) -> Golden:
    """Opens a golden file. schedules: schedules.json; None looks beside the file and in shared."""
    with safe_open(path, "pt") as file:
        text = (file.metadata() or {}).get("golden", "{}")
        info = json.loads(text, object_hook=Named)
        tensors = Named({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    places = (
        [schedules] if schedules else [path.parent / "schedules.json", SHARED / "schedules.json"]
    )
    found = next((place for place in places if place.is_file()), None)
    return Golden(tensors, info, path, json.loads(found.read_text()) if found else None)


def check(path: Path, quiet: bool = False, schedules: Path | None = None) -> bool:
    """Compares everything in a golden file. Returns whether all is well."""
    golden = read(path, schedules)
    if not (HERE / "golden" / f"{golden.system}.py").is_file():
        known = sorted(file.stem for file in (HERE / "golden").glob("*.py"))
        raise ValueError(f"{path}: no comparison for {golden.system!r}; there are {known}")
    comparison = importlib.import_module(f"golden.{golden.system}")
    facts, texts = (
        {
            name: value
            for key in getattr(comparison, kind, ())
            if (found := at(golden.info, key)) is not None
            for name, value in below(found, key)
        }
        for kind, below in (("RESULTS", numbers), ("TEXTS", lists))
    )
    report = Report(dict(golden.tensors), facts, texts, quiet)
    if not report.left:
        raise ValueError(f"{path}: holds nothing to compare; give a golden file")
    with report.part():
        comparison.compare(golden, report)
    return report.finish()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path, nargs="+")
    parser.add_argument("--schedules", type=Path, help="schedules.json, if it lies elsewhere")
    parser.add_argument("--quiet", action="store_true", help="print failures only")
    given = parser.parse_args()
    torch.set_num_threads(1)
    good = True
    for path in given.file:
        print(path)
        try:
            good &= check(path, given.quiet, given.schedules)
        except (ValueError, OSError) as error:
            print(f"WRONG {error}")
            good = False
        except Exception as error:  # whatever one file does, the next is checked
            traceback.print_exc()
            print(f"WRONG {path}: {type(error).__name__}: {' '.join(str(error).split())}")
            good = False
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
