"""Runs, again and again, from one process that has imported everything: starting Python costs more
than a tiny run.

torchrun's own agent runs here, with its rendezvous, restarts and signals, but forks its workers
instead of starting Python for each. Requests come as JSON, one a line:
    {"folder": ..., "args": [...of lit_mimdit], "torchrun": [...its options], or null for one plain
    process, and if wanted
     "env": {...}, "netns": name of a network namespace, "output": name of the file,
     "group": a process group to join, or 0}
        starts a run, and answers with its id, which without a group to join is that of its process
        group; its output is appended to FOLDER/output.txt
    {"wait": id, "timeout": seconds}    answers with the exit status (negative: the signal), or null
    after the timeout
The end of the input kills what still runs.
"""

import ctypes
import gc
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

CLONE_NEWNET = 0x40000000


def worker(folder: str, args: list[str]) -> None:
    """One rank; `{rank}` in the folder is its own. BUNDLE: so many numbers travel at once."""
    from lit_mimdit import cli
    from lit_mimdit.training import sharded_states

    sharded_states.BUNDLE = int(os.environ.get("BUNDLE", sharded_states.BUNDLE))

    folder = folder.format(rank=os.environ.get("RANK", 0))
    Path(folder).mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    status = cli.main(args)
    sys.stdout.flush()
    sys.stderr.flush()
    if status:
        os._exit(status)


def run(request: dict) -> None:
    """In a process of its own: the agent and its workers, or one plain process."""
    if "group" in request:
        os.setpgid(0, request["group"])
    else:
        os.setsid()
    folder = Path(request["folder"].format(rank=0))
    folder.mkdir(parents=True, exist_ok=True)
    output = os.open(
        folder / request.get("output", "output.txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND
    )
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ |= request.get("env") or {}
    if request.get("netns"):
        with open(f"/var/run/netns/{request['netns']}") as namespace:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(namespace.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
    if request.get("torchrun") is None:
        return worker(request["folder"], request["args"])
    from torch.distributed.elastic.multiprocessing.api import MultiprocessContext
    from torch.distributed.elastic.rendezvous import dynamic_rendezvous
    from torch.distributed.launcher.api import elastic_launch
    from torch.distributed.run import config_from_args, parse_args

    # the name of a caller, for a log that nobody keeps: found by going through all modules, of
    # which there are thousands here
    dynamic_rendezvous.get_method_name = lambda depth=2: ""
    # A function that has ended waits until its result is read, which an agent that is told to stop
    # never does: it kills it after 30 seconds. Commands, which torchrun starts elsewhere, just end.
    close = MultiprocessContext._close

    def close_and_let_go(self, *args, **options) -> None:
        if not self._worker_finished_event.is_set():
            self._worker_finished_event.set()
        close(self, *args, **options)

    MultiprocessContext._close = close_and_let_go
    config, _, _ = config_from_args(parse_args([*request["torchrun"], "--no-python", "unused"]))
    config.start_method = "fork"
    elastic_launch(config, worker)(request["folder"], request["args"])


def wait(pid: int, timeout: float) -> int | None:
    limit = time.monotonic() + timeout
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > limit:
            return None
        time.sleep(0.02)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # what runs import only while they are under way costs each of them seconds: DeepSpeed's Muon,
    # which it imports whatever the optimizer is, starts PyTorch's compiler
    with suppress(ModuleNotFoundError):
        import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401
    import lightning.pytorch.cli
    import lightning.pytorch.loggers  # noqa: F401
    import omegaconf  # noqa: F401
    import torch.distributed.run
    import torch.utils.tensorboard

    import lit_mimdit.cli
    import lit_mimdit.data.datamodule
    import lit_mimdit.systems.mimdit
    import lit_mimdit.training.callbacks
    import lit_mimdit.training.command
    import lit_mimdit.training.strategies  # noqa: F401

    # DeepSpeed's ZeRO-3 puts all parameters in words, for a message that it does not print
    torch.set_printoptions(threshold=0, edgeitems=0)
    gc.collect()
    gc.freeze()  # a collection in a fork would write to, and so copy, the memory of all of this

    running: set[int] = set()
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = wait(request["wait"], request["timeout"])
            running -= {request["wait"]} if answer is not None else set()
        else:
            answer = os.fork()
            if answer == 0:
                status = 1
                try:
                    run(request)
                    status = 0
                except BaseException as error:
                    print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
                finally:
                    os._exit(status)
            if "group" in request:  # on both sides: whoever comes first
                os.setpgid(answer, request["group"] or answer)
            running.add(answer)
        print(json.dumps(answer), file=answers, flush=True)
    for pid in running:
        for kill in (os.killpg, os.kill):  # one that joined a group has none of its own
            with suppress(ProcessLookupError):
                kill(pid, signal.SIGKILL)
    os._exit(0)  # nothing is left to be done, and tearing down all that was imported takes long


if __name__ == "__main__":
    main()
