"""What restores in most tests of this folder."""

import pytest
import torch

from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.restorer import Restorer


@pytest.fixture(scope="module")
def restorer(branch_file) -> Restorer:
    return load_restorer(branch_file, None, torch.device("cpu"))
