"""Hot kernels at 70,000 rows against NumPy, on the device at hand."""

import numpy as np
import pytest

from physml import backend
from physml.atoms import canary
from physml.errors import TrainingError


@pytest.mark.parametrize("kernel", canary.kernels(), ids=lambda k: k.name)
def test_hot_kernels_agree_with_numpy(kernel):
    """Float64, to 1e-11 of the largest value."""
    assert backend.relative_error(kernel, np.float64) < 1e-11


def test_a_wrong_row_is_caught():
    """One row in 70,000 that is off stops the run."""
    kernel = canary.kernels()[0]
    wrong = kernel._replace(compiled=lambda v: kernel.compiled(v).at[-1].multiply(1.001))
    with pytest.raises(TrainingError, match="AFS"):
        backend.check((wrong,))
