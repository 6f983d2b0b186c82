"""Several runs, one after the other, in the processes that torchrun has started once: starting them costs more than a tiny run.

torchrun ... tests/cluster/many_runs.py RUNS.json, a list of {"folder": ..., "args": [...]}; status and errors go to FOLDER/rankN.txt.
"""

import json
import os
import sys
import traceback
from pathlib import Path

from lit_mimdit import cli


def main() -> None:
    for run in json.loads(Path(sys.argv[1]).read_text()):
        folder = Path(run["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        sys.stdout.flush()
        with open(f"rank{os.environ['RANK']}.txt", "w") as said:
            os.dup2(said.fileno(), 1)  # the descriptors, not sys.stdout: handlers of Python's logging hold on to the old object
            os.dup2(said.fileno(), 2)
        try:
            status = cli.main(run["args"])
        except BaseException:
            traceback.print_exc()
            status = -1
        print(f"status {status}", flush=True)


if __name__ == "__main__":
    main()
