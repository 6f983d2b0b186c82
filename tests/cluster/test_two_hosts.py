"""Two hosts, made of network namespaces: `torchrun --nnodes 2`, and a cable that is pulled."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.starter import PATIENCE, environment, said
from kit.watch import seen
from real_runs import HERE, assert_same_run

TIMEOUT = "0:00:15"
STRATEGIES = {
    "ddp": "lightning.pytorch.strategies.DDPStrategy",
    "zero2": "lit_mimdit.training.strategies.ZeROOnCPU",
}


def hosts(*args: str, **options) -> subprocess.CompletedProcess:
    command = ["timeout", "-k", "10", str(2 * PATIENCE), str(HERE / "two_hosts.sh"), *args]
    return subprocess.run(command, capture_output=True, text=True, **options)


@pytest.fixture
def network() -> Iterator[str]:
    """Two hosts; their name."""
    name = f"mimdit{os.getpid()}"
    if not sys.platform.startswith("linux") or shutil.which("ip") is None:
        pytest.skip("needs Linux and iproute2 (ip)")
    up = hosts("up", name)
    if up.returncode:
        hosts("down", name)
        pytest.skip(f"two hosts cannot be made here: {up.stderr.strip()}")
    yield name
    hosts("down", name)


def options(strategy: str) -> list[str]:
    return ["--trainer.num_nodes", "2", "--trainer.devices", "1", "--trainer.strategy", strategy]


def test_torchrun_on_two_hosts_with_ddp(network, watched, undisturbed, tmp_path):
    """The command of docs/how_to/cluster.md, with its own Python on each host."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [
        "torchrun",
        network,
        "-m",
        "lit_mimdit",
        "fit",
        "-c",
        watched(tmp_path),
        *options("ddp"),
    ]
    done = hosts(*command, cwd=tmp_path, env=environment() | {"PATH": path})
    assert done.returncode == 0, done.stderr + said(tmp_path)[-6000:]
    assert_same_run(tmp_path, undisturbed)
    record = json.loads((tmp_path / "runs/quickstart/version_0/run.json").read_text())
    assert record["processes"] == 2 and record["strategy"] == "DDPStrategy"


class Pair:
    """torchrun's agents on both hosts, from the starter."""

    def __init__(self, starter, network: str, folder: Path, args: list[str], **env: str) -> None:
        self.starter, self.pids = starter, []
        for host in (0, 1):
            torchrun = [
                "--nnodes",
                "2",
                "--nproc-per-node",
                "1",
                "--rdzv-id",
                folder.name,
                "--rdzv-backend",
                "c10d",
            ]
            torchrun += [
                "--rdzv-endpoint",
                "10.10.0.1:29400",
                "--local-addr",
                f"10.10.0.{host + 1}",
                "--rdzv-conf",
                f"is_host={1 - host}",
            ]
            more = {
                "netns": f"{network}-{host}",
                "output": f"host-{host}.txt",
                "env": env | {"GLOO_SOCKET_IFNAME": "eth0"},
            }
            self.pids.append(starter.start(folder, args, torchrun, **more))

    def wait(self, timeout: float = PATIENCE) -> list[int | None]:
        return [self.starter.wait(pid, timeout) for pid in self.pids]


@pytest.mark.parametrize("strategy", ["ddp", "zero2"])
def test_a_host_that_is_cut_off_ends_the_run_in_an_error(
    strategy, network, starter, watched, undisturbed, tmp_path
):
    config = watched(
        tmp_path,
        **{
            "trainer.strategy": {
                "class_path": STRATEGIES[strategy],
                "init_args": {"timeout": TIMEOUT},
            }
        },
    )
    args = ["fit", "-c", config, *options(strategy)[:4]]
    pair = Pair(starter, network, tmp_path, args, HALT="0:3")
    starter.halted(pair.pids[0], tmp_path)
    assert hosts("cut", network).returncode == 0
    (tmp_path / "go").touch()
    for host, pid in enumerate(pair.pids):
        output = tmp_path / f"host-{host}.txt"
        starter.until(pid, tmp_path, lambda output=output: "error: rank " in output.read_text())
        (message,) = [
            line for line in output.read_text().splitlines() if line.startswith("error: ")
        ]
        assert "did not answer within the strategy's timeout" in message
    assert starter.wait(pair.pids[0]) != 0
    os.killpg(
        pair.pids[1], signal.SIGKILL
    )  # this torchrun cannot reach the other, and only gives up minutes later
    starter.wait(pair.pids[1])
    assert max(seen(tmp_path)) == 3
    hosts("down", network)
    assert hosts("up", network).returncode == 0
    args += ["--trainer.strategy", {"ddp": "ddp", "zero2": "zero2_cpu"}[strategy]]
    assert Pair(starter, network, tmp_path, args).wait() == [0, 0], said(tmp_path)
    assert "going on from" in said(tmp_path)
    assert_same_run(tmp_path, undisturbed)
