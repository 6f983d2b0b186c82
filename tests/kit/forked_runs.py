"""Starts runs as processes of their own without waiting for Python and torch each time: one process
that has imported them forks.

A line of standard input is a run as JSON: {"folder", "args", "ranks", "environment"}. Its ranks are
a process group, as they are behind a launcher; what they say goes to FOLDER/output.txt. The answer
is a line with the ranks' exit statuses, negative for a signal.
"""

import gc
import json
import os
import socket
import sys
import time
import traceback

import lightning.pytorch.loggers  # noqa: F401
import omegaconf  # noqa: F401
import torch.utils.tensorboard  # noqa: F401

import lit_mimdit.data.datamodule
import lit_mimdit.systems.mimdit
import lit_mimdit.training.callbacks
import lit_mimdit.training.command
import lit_mimdit.training.strategies  # noqa: F401
from lit_mimdit import cli

LIMIT = 400  # seconds a run may take


def rank(run: dict, number: int, port: int) -> None:
    """In the forked process: never returns."""
    os.chdir(run["folder"])
    output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1), os.dup2(output, 2)
    os.environ |= run["environment"]
    if run["ranks"] > 1:
        os.environ |= {
            "LOCAL_RANK": str(number),
            "NODE_RANK": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    status = 1
    try:
        status = cli.main(run["args"])
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(status)


def perform(run: dict) -> list[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks: list[int] = []
    for number in range(run["ranks"]):
        pid = os.fork()
        group = ranks[0] if ranks else pid or os.getpid()
        os.setpgid(pid, group)  # on both sides: whoever comes first
        if pid == 0:
            rank(run, number, port)
        ranks.append(pid)
    statuses: dict[int, int] = {}
    end = time.monotonic() + LIMIT
    while len(statuses) < len(ranks):
        for pid in set(ranks) - statuses.keys():
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                statuses[pid] = os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.killpg(ranks[0], 9)
        time.sleep(0.02)
    return [statuses[pid] for pid in ranks]


gc.collect()
gc.freeze()  # a collection in a fork would write to, and so copy, the memory of all of this
for line in sys.stdin:
    print(json.dumps(perform(json.loads(line))), flush=True)
