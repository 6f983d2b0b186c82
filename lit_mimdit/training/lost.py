"""A run ends when another of its processes no longer answers.

Its node is gone, cut off or stuck, or it was killed.
"""

import os
import re
import socket

import torch.distributed as dist

# gloo raises plain RuntimeErrors, which name its source files; NCCL's and the store's are
# DistErrors
GLOO = re.compile(
    r"\bgloo/|Gloo\b|Connection (?:reset|closed) by peer|Application timeout caused pair closure"
)


def lost_contact(error: RuntimeError) -> str | None:
    """One line for the user if `error` is a failed or timed-out exchange between processes, or
    None.
    """
    text = " ".join(str(error).split())
    if not isinstance(error, dist.DistError) and not GLOO.search(text):
        return None
    where = (
        f"rank {os.environ.get('SLURM_PROCID') or os.environ.get('RANK') or 'unknown'} on"
        f" {socket.gethostname()}"
    )
    return (
        f"{where}: another process failed, or did not answer within the strategy's timeout"
        f" ({text[:200]}). The output of the one that failed first says why; the same command with"
        " `resume: auto` goes on from the last checkpoint"
    )
