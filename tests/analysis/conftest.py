"""What the simulations share."""

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same in every run and do not depend on which tests ran before."""
    return np.random.default_rng(20260101)
