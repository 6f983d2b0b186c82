"""A model, not a measurement: how a training step divides from 8 to 1,024 GPUs, and what becomes
the limit first.

    python benchmarks/scaling.py        # writes benchmarks/scaling.md

Counted: the floating-point operations of a step (PyTorch's FlopCounterMode over the real network at
full size, with shapes for tensors: forward, recomputation and backward) and the bytes of branch and
checkpoints. Published: the GPUs' and the network's rates, and how often GPUs fail. Assumed: named
in ASSUMED. Nothing here was run on GPUs.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import yaml
from operations import branch_parameters, step_operations

from lit_mimdit.models.branch_config import BranchConfig
from lit_mimdit.models.geometry import read_geometry
from lit_mimdit.settings import build

ROOT = Path(__file__).parents[1]
GPUS_A_NODE = 8


@dataclass(frozen=True)
class Machine:
    """A node of 8 GPUs, all rates in units a second and one direction.

    peak: dense bfloat16 operations of a GPU. nvlink: bytes of a GPU inside its node. network: bytes
        of a GPU between nodes.
    """

    name: str
    peak: float
    nvlink: float
    network: float


MACHINES = (Machine("A100", 312e12, 300e9, 25e9), Machine("H100", 989.4e12, 450e9, 50e9))
SOURCES = """\
- A100: 312 TFLOP/s dense bf16, NVLink 600 GB/s both ways, 200 Gb/s InfiniBand a GPU. \
NVIDIA's data sheets of A100 and DGX A100.
- H100 SXM: 989.4 TFLOP/s dense bf16, NVLink 900 GB/s both ways, 400 Gb/s InfiniBand a GPU. \
NVIDIA's data sheets of H100 and DGX H100.
- Failures: 419 unexpected interruptions in 54 days on 16,384 H100s (Llama 3, arXiv 2407.21783, \
section 3.3.4): one in 50,676 GPU hours.
- MFU: Llama 3 reports 38 to 43% in bf16 on 8,192 to 16,384 H100s (the same, table 4).
- Best interval between checkpoints: Young, Communications of the ACM 17 (1974)."""


@dataclass(frozen=True)
class Assumed:
    """What is neither counted nor published."""

    mfu: float = 0.4  # share of the peak that a step reaches
    network_share: float = 0.8  # share of a link's rate that a collective reaches
    hop: float = 10e-6  # s, latency of one hop of a collective between nodes
    pair_bytes: float = (
        2 * 3 * 512 * 512 * 0.6
    )  # an LQ and GT tile of 512 px, lossless: 60% of the raw bytes
    latent_bytes: float = 2 * 16 * 64 * 64 * 2.0  # the same as bf16 latents of shards
    store_read: float = 10e9  # bytes/s that the shared store (NFS, S3) gives to all nodes together
    store_write: float = 1e9  # bytes/s that one process writes to it
    # s of one CPU core a pair: decoding, stacking, checksum, floats
    # (experiments/LOG.md: 9 + 2.2 + 0.6 + 1.3 ms, rounded up)
    decode: float = 0.014
    cores: float = 12.0  # CPU cores a GPU
    restart: float = (
        300.0  # s from a failure to the first new step: queue, imports, loading, the first batch
    )
    gpu_hours: float = 16384 * 54 * 24 / 419  # between failures of one GPU
    every_steps: int = 1000  # steps between checkpoints, as in the YAML


ASSUMED = Assumed()


# -- the model: every time in seconds


def compute_time(operations: float, images: float, machine: Machine, mfu: float) -> float:
    """Time of `images` on one GPU: operations x images / (MFU x peak)."""
    return operations * images / (mfu * machine.peak)


def all_reduce_time(size: float, gpus: int, machine: Machine, share: float, hop: float) -> float:
    """Time of adding up `size` bytes over all GPUs, by rings in the node and a ring between nodes
    on each of its 8 network cards.

    Every GPU sends and receives 2 (n - 1) / n of its bytes (Patarasuk and Yuan, J. Parallel
    Distrib. Comput. 69, 2009): inside the node all of them over NVLink; between M nodes each GPU an
    eighth of them over its own card, with 2 (M - 1) hops.
    """
    local = min(gpus, GPUS_A_NODE)
    time = 2 * (local - 1) / local * size / (share * machine.nvlink)
    nodes = gpus // local
    return (
        time
        + 2 * (nodes - 1) / nodes * (size / local) / (share * machine.network)
        + 2 * (nodes - 1) * hop
    )


def data_time(
    images: float,
    gpus: int,
    pair_bytes: float,
    assumed: Assumed = ASSUMED,
    decode: float | None = None,
) -> float:
    """Time in which the store gives, or the CPUs decode, a step's images (`images` a GPU),
    whichever is longer.
    """
    decode = assumed.decode if decode is None else decode
    return max(images * gpus * pair_bytes / assumed.store_read, images * decode / assumed.cores)


def store_limit(
    operations: float, machine: Machine, pair_bytes: float, assumed: Assumed = ASSUMED
) -> float:
    """GPUs that the store can just feed: from here on data are the limit, whatever the batch."""
    return assumed.store_read / (pair_bytes / compute_time(operations, 1, machine, assumed.mfu))


def checkpoint_time(parameters: int, assumed: Assumed = ASSUMED) -> float:
    """Time of one checkpoint.

    The first process writes parameters, average and two moments, 4 bytes each, while the others
    wait.
    """
    return 16 * parameters / assumed.store_write


def lost_share(interval: float, restart: float, between_failures: float) -> float:
    """Share of the time that failures cost.

    Each loses half an interval between checkpoints, and a restart.
    """
    return (interval / 2 + restart) / between_failures


def best_interval(checkpoint: float, between_failures: float) -> float:
    """Time between checkpoints that loses least: sqrt(2 x checkpoint x time between failures)."""
    return math.sqrt(2 * checkpoint * between_failures)


@dataclass(frozen=True)
class ClusterTimes:
    """A cluster: times of a step in s, and shares of the whole time."""

    machine: Machine
    gpus: int
    images: float  # a GPU
    compute: float
    reduce: float
    data: float
    checkpoint: float  # a step's share of it
    failures: float  # what they add to a step
    between_failures: float
    best_steps: float

    @property
    def step(self) -> float:
        """Time of a step, in which gradients travel and data arrive while the GPUs compute.

        What exceeds that is waited for, and so are checkpoints.
        """
        return max(self.compute, self.reduce, self.data) + self.checkpoint + self.failures

    @property
    def limit(self) -> str:
        """What makes the step longer than its computation by most; what is hidden behind it costs
        nothing.
        """
        waits = {"gradients": self.reduce - self.compute, "data": self.data - self.compute}
        losses = waits | {"checkpoints": self.checkpoint, "restarts": self.failures}
        return max(losses, key=losses.get)


def row(
    machine: Machine,
    gpus: int,
    images: float,
    operations: float,
    parameters: int,
    pair_bytes: float,
    assumed: Assumed = ASSUMED,
) -> ClusterTimes:
    """The model of one cluster with `images` a GPU and step."""
    compute = compute_time(operations, images, machine, assumed.mfu)
    reduce = all_reduce_time(
        2 * parameters, gpus, machine, assumed.network_share, assumed.hop
    )  # bf16 under ZeRO
    decode = (
        assumed.decode * pair_bytes / assumed.pair_bytes
    )  # latents are bytes to be copied, not images
    data = data_time(images, gpus, pair_bytes, assumed, decode)
    checkpoint = checkpoint_time(parameters, assumed)
    step = max(compute, reduce, data) + checkpoint / assumed.every_steps
    between = assumed.gpu_hours * 3600 / gpus
    failures = step * lost_share(assumed.every_steps * step, assumed.restart, between)
    best = best_interval(checkpoint, between) / step
    return ClusterTimes(
        machine,
        gpus,
        images,
        compute,
        reduce,
        data,
        checkpoint / assumed.every_steps,
        failures,
        between,
        best,
    )


# -- the page

COLUMNS = [
    "GPUs",
    "images a GPU",
    "compute",
    "gradients",
    "data",
    "checkpoint",
    "restarts",
    "step",
    "images/s",
    "efficiency",
    "largest loss",
]


def table(rows: list[ClusterTimes]) -> str:
    """Times in ms a step; efficiency: images/s a GPU against the first row's."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---:|" * 10 + "---|"]
    first = rows[0].images / rows[0].step
    for r in rows:
        times = [1e3 * x for x in (r.compute, r.reduce, r.data, r.checkpoint, r.failures, r.step)]
        cells = [
            f"{r.gpus:,}",
            f"{r.images:g}",
            *(f"{x:,.0f}" if x >= 10 else f"{x:.2g}" for x in times),
        ]
        cells += [f"{r.gpus * r.images / r.step:,.0f}", f"{r.images / r.step / first:.0%}", r.limit]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def page(config: dict) -> str:
    """The text of scaling.md."""
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    branch, batch = build(BranchConfig, model["branch"]), data["batch_size"]
    geometry = read_geometry(model["backbone"])
    counted = step_operations(branch, data["crop"], geometry, model["gradient_checkpointing"])
    parameters = branch_parameters(branch, geometry)
    whole, latents = sum(counted.values()), sum(counted.values()) - counted["VAE"]
    strong = [8, 16, 32, 64, 128]
    weak = [8, 16, 32, 64, 128, 256, 512, 1024]
    out = [
        "# Scaling on paper",
        "",
        (
            "**A model, not a measurement.** `python benchmarks/scaling.py` writes this page;"
            " nothing in it was run on GPUs. Experiment: `experiments/foundir_sd35_medium.yaml`"
            f" (SD3.5-medium, {data['crop']} px, gradient checkpointing, ZeRO-2 in bf16)."
        ),
        "",
        "## What is counted",
        "",
        (
            "Operations an image, by PyTorch's FlopCounterMode over the real network without"
            " numbers (fake tensors):"
        ),
        "",
        "| part | TFLOP |",
        "|---|---:|",
        f"| VAE, LQ and GT | {counted['VAE'] / 1e12:.2f} |",
        f"| branch, its keys and values | {counted['branch'] / 1e12:.2f} |",
        f"| backbone, forward | {counted['backbone'] / 1e12:.2f} |",
        f"| backward of both, with recomputation | {counted['backward'] / 1e12:.2f} |",
        f"| all | {whole / 1e12:.2f} |",
        f"| from latent shards (no VAE) | {latents / 1e12:.2f} |",
        "",
        (
            f"Trained: {parameters / 1e6:.1f} M parameters. They have {2 * parameters / 1e9:.2f} GB"
            f" of bf16 gradients a step, and {16 * parameters / 1e9:.2f} GB a checkpoint. A"
            " checkpoint holds parameters, average and two moments, and no frozen backbone."
        ),
        "",
        "## What is assumed, and what was published",
        "",
        (
            f"MFU is {ASSUMED.mfu:.0%}. Collectives reach {ASSUMED.network_share:.0%} of a link,"
            f" with {ASSUMED.hop * 1e6:.0f} µs a hop. A pair of lossless tiles has"
            f" {ASSUMED.pair_bytes / 1e6:.2f} MB, its latents {ASSUMED.latent_bytes / 1e6:.2f} MB."
            f" The shared store gives {ASSUMED.store_read / 1e9:.0f} GB/s to all nodes together,"
            f" and takes {ASSUMED.store_write / 1e9:.0f} GB/s from one process. A pair costs"
            f" {ASSUMED.decode * 1e3:.0f} ms of a CPU core, of which a GPU has {ASSUMED.cores:.0f}."
            f" A restart takes {ASSUMED.restart:.0f} s. There is a checkpoint every"
            f" {ASSUMED.every_steps:,} steps. Gradients and data travel while the GPUs compute. The"
            " MFU is that of large batches. With one image a GPU it will be lower."
        ),
        "",
        SOURCES,
        "",
    ]
    for machine in MACHINES:
        fixed = [row(machine, n, batch / n, whole, parameters, ASSUMED.pair_bytes) for n in strong]
        grown = [row(machine, n, 16, whole, parameters, ASSUMED.pair_bytes) for n in weak]
        from_latents = [
            row(machine, n, 16, latents, parameters, ASSUMED.latent_bytes) for n in weak
        ]
        out += [
            f"## {machine.name}: ms a step",
            "",
            f"The paper's batch of {batch}: 128 GPUs are the most it can use.",
            "",
            table(fixed),
            "",
        ]
        out += ["A batch that grows with the cluster, 16 images a GPU:", "", table(grown), ""]
        out += ["The same from latent shards:", "", table(from_latents), ""]
        last = grown[-1]
        out += [
            (
                f"The store feeds {store_limit(whole, machine, ASSUMED.pair_bytes):,.0f} GPUs with"
                f" images, or {store_limit(latents, machine, ASSUMED.latent_bytes):,.0f} with"
                f" latents. At {last.gpus:,} GPUs something fails every"
                f" {last.between_failures / 3600:.0f} h; the interval between checkpoints that"
                f" loses least is {last.best_steps:,.0f} steps."
            ),
            "",
        ]
    return "\n".join([*out, LIMITS])


LIMITS = """\
## What becomes the limit, and what the framework does about it

- **With the paper's batch: checkpoints**, then the batch itself. The steps get shorter, a \
checkpoint every 1,000 of them does not: on 128
  H100s it takes a tenth of the time. It holds the branch alone, in one file; \
`ModelCheckpoint.every_n_train_steps` chooses how often. Above
  128 GPUs the batch has less than an image a GPU; nothing here says that larger batches learn \
as well.
- **With a batch that grows: data**, once the store is shared by more GPUs than it feeds. With \
`data.cache_dir` local disks keep whole
  shards, so that the store is asked for each byte once. `data latents` makes a pair a quarter as \
large and saves the VAE.
  Decoding needs CPU cores next to the GPUs (`data.workers`), here less than one a GPU.
- **Restarts** come third, where the store suffices: `resume: auto`, requeueing and torchrun's \
`--max-restarts` need nobody; a failure costs
  half the interval between checkpoints, and the restart.
- **Gradients** stay hidden behind compute: only the branch's travel, the frozen backbone has \
none, and ZeRO-2 sends them as bf16 while the
  backward pass runs. On a slower network than these they would be the first.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--config", type=Path, default=ROOT / "experiments" / "foundir_sd35_medium.yaml"
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    args.output.write_text(
        page(yaml.safe_load(args.config.read_text(encoding="utf-8"))), encoding="utf-8"
    )
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
