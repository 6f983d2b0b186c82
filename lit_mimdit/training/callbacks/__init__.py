"""Everything a run shows, guards and writes; each callback is one file.

Those that look at routers share `window`, which collects their decisions.
"""

from lit_mimdit.training.callbacks.finite import FiniteGuard
from lit_mimdit.training.callbacks.hyperparameters import Hyperparameters
from lit_mimdit.training.callbacks.losses import LossByTime
from lit_mimdit.training.callbacks.progress import TrainingProgress
from lit_mimdit.training.callbacks.quarantine import BrokenSamples
from lit_mimdit.training.callbacks.record import RunRecord
from lit_mimdit.training.callbacks.routing_histograms import RoutingHistograms
from lit_mimdit.training.callbacks.routing_pictures import RoutingPictures
from lit_mimdit.training.callbacks.routing_scalars import RoutingScalars
from lit_mimdit.training.callbacks.samples import SamplePictures
from lit_mimdit.training.callbacks.stop import GracefulStop
from lit_mimdit.training.callbacks.table import ResultTable
from lit_mimdit.training.callbacks.throughput import Throughput
from lit_mimdit.training.callbacks.training_time import TrainingTime
from lit_mimdit.training.callbacks.write import WriteRestored

__all__ = [
    "BrokenSamples",
    "FiniteGuard",
    "GracefulStop",
    "Hyperparameters",
    "LossByTime",
    "ResultTable",
    "RoutingHistograms",
    "RoutingPictures",
    "RoutingScalars",
    "RunRecord",
    "SamplePictures",
    "Throughput",
    "TrainingProgress",
    "TrainingTime",
    "WriteRestored",
]
