"""Which errors mean that another process no longer answers."""

from datetime import timedelta

import pytest
import torch.distributed as dist

from lit_mimdit import cli
from lit_mimdit.training import command
from lit_mimdit.training.lost import lost_contact


def test_a_store_that_nobody_serves_is_one_line_and_other_errors_are_not(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(dist.DistNetworkError) as error:
        dist.TCPStore("127.0.0.1", 1, is_master=False, timeout=timedelta(seconds=1))
    said = lost_contact(error.value)
    assert (
        said.startswith("rank 3 on ")
        and "within the strategy's timeout" in said
        and "\n" not in said
    )
    assert lost_contact(
        RuntimeError(
            "[/x/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.10.0.1]:32163"
        )
    )
    assert lost_contact(RuntimeError("CUDA out of memory")) is None

    def fails(args: list[str], raised: RuntimeError) -> None:
        raise raised

    monkeypatch.setattr(command, "run_trainer", lambda args, *_: fails(args, error.value))
    assert cli.main(["fit"]) == 3
    assert capsys.readouterr().err == f"error: {said}\n"
    monkeypatch.setattr(
        command, "run_trainer", lambda args, *_: fails(args, RuntimeError("CUDA out of memory"))
    )
    with pytest.raises(RuntimeError, match="out of memory"):
        cli.main(["fit"])
