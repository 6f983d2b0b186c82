"""Remarks of libraries that no user of this package can act upon, each by name and with its reason.

`LIT_MIMDIT_WARNINGS=1` shows all of them.
"""

import logging
import os
import re
import warnings
from itertools import product
from typing import NamedTuple

SHOW_ALL = "LIT_MIMDIT_WARNINGS"


# Lightning's informing loggers; which one speaks depends on the order of imports
LIGHTNING = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.rank_zero",
    "lightning_utilities.core.rank_zero",
    "lightning.pytorch.trainer.connectors.checkpoint_connector",
)
OF_LIGHTNING = (
    (r"\S+ Tip: For seamless cloud logging", "an advertisement"),
    (r"TPU available: False", "no system here runs on a TPU"),
    (r"`weights_only` was not set", "the package decides how a checkpoint is read"),
    (r"Trainer already configured with model summary", "the YAML chose its summary"),
)


class Remark(NamedTuple):
    """A remark that is not shown.

    source: the logger it comes through; "" for the module warnings. text: how it begins, a regular
    expression.
    """

    source: str
    text: str
    reason: str


# made while libraries are imported, before any command of this package has begun
ON_IMPORT = (
    Remark(
        "bitsandbytes.backends.cpu.ops",
        r"Failed to load CPU gemm_4bit_forward",
        "an optional kernel for weights of 4 bits; without it they are computed in another way",
    ),
    Remark(
        "diffusers.quantizers.torchao.torchao_quantizer",
        r"Unable to import `torchao` Tensor objects",
        "it concerns files of quantized weights, and none is read here",
    ),
    Remark(
        "torch.utils._pytree",
        r"<enum '\w+'> is an Enum subclass",
        "torchao's own use of PyTorch",
    ),
    Remark(  # at every call of every layer, also of who uses the package without its commands
        "bitsandbytes.autograd._functions",
        r"MatMul8bitLt: inputs will be cast",
        "int8 computes in 16 bits, whatever the backbone's precision",
    ),
)
REMARKS = (
    *ON_IMPORT,
    *(Remark(logger, text, why) for logger, (text, why) in product(LIGHTNING, OF_LIGHTNING)),
    Remark(
        "",
        r"\s*By default only one JsonargparseDeprecationWarning",
        "Lightning's own use of jsonargparse",
    ),
    Remark(
        "",
        r"\s*(``[\w.]+``|\w+ parameter) was deprecated in v4\.\d+",
        "Lightning's own use of jsonargparse",
    ),
    Remark(
        "",
        r"`torch_dtype` is deprecated",
        "the oldest diffusers that setup.cfg allows knows no other name",
    ),
    Remark(
        "",
        r"The `local_dir_use_symlinks` argument is deprecated",
        "diffusers' own call of the hub's library",
    ),
    Remark(
        "huggingface_hub.utils._http",
        r"(?s).* thrown while requesting |Retrying in ",
        "the error after the last try says it once; a wait for a rate limit is still announced",
    ),
    Remark(
        "",
        r"The `srun` command is available on your system but is not used",
        "a command on one machine needs none; the scripts of experiments/cluster use it",
    ),
    Remark(
        "",
        r"Found \d+ module\(s\) in eval mode",
        "the backbone is frozen and stays in evaluation mode, as it must",
    ),
    Remark(
        "",
        r".*does not have many workers which may be a bottleneck",
        "the number of workers is the user's; Throughput reports how long the data took",
    ),
    Remark(
        "",
        r"Trying to infer the `batch_size` from an ambiguous collection",
        "every metric that is logged is given its batch size, or does not depend on it",
    ),
    Remark(
        "",
        r"The number of training batches \(\d+\) is smaller than the logging interval",
        "short runs such as the quickstart log at their end",
    ),
    Remark(
        "",
        r"Checkpoint directory .* exists and is not empty",
        "going on in the folder of a run is what --resume auto does",
    ),
    Remark(
        "",
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",
        "Lightning's own use of PyTorch",
    ),
    Remark(
        "",
        r"You are using `torch\.load` with `weights_only=False`",
        "Lightning's loading of checkpoints that this package wrote",
    ),
    Remark(
        "",
        r".*`torch\.jit\.\w+` is (deprecated|not supported)",
        "torchmetrics and pyiqa compile at import; published weights are files of torch.jit",
    ),
    Remark(
        "",
        r"pkg_resources is deprecated as an API",
        "pyiqa's CLIP imports it; setup.cfg holds setuptools where it still exists",
    ),
    Remark(
        "",
        r"The '?pynvml'? package is deprecated",
        "PyTorch's own import",
    ),
    Remark(
        "",
        r"Importing from timm\.models\.\w+ is deprecated",
        "pyiqa's own import",
    ),
    Remark(
        "",
        r"Some weights of the model checkpoint .* were not used",
        "the package reports weights that do not fit as errors (models/backbone.py)",
    ),
)


def hush() -> None:
    """Silences REMARKS in this process and those it starts, unless the user asked for all."""
    if _all_shown():
        warnings.simplefilter("default")
        return
    for remark in REMARKS:
        if remark.source:
            logging.getLogger(remark.source).addFilter(_Without(remark.text))
        else:
            warnings.filterwarnings("ignore", message=remark.text)


def hush_imports() -> None:
    """Silences ON_IMPORT in this process, unless the user asked for all.

    Importing the package calls it. Whoever imports a package keeps all other warnings as they are.
    """
    if not _all_shown():
        for remark in ON_IMPORT:
            logging.getLogger(remark.source).addFilter(_Without(remark.text))


def _all_shown() -> bool:
    return os.environ.get(SHOW_ALL, "0") not in ("", "0")


class _Without(logging.Filter):
    """Lets pass what does not begin with a text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = re.compile(text)

    def filter(self, record: logging.LogRecord) -> bool:
        return self.text.match(record.getMessage()) is None
