"""Tables of simulated predictions with known errors."""

from __future__ import annotations

import numpy as np
import pandas as pd


def prediction_table(n: int, seed: int = 0) -> pd.DataFrame:
    """Draw galaxies with errors of 0.1 dex and a sigma, a predictor with twice the error, and an equally good one."""
    rng = np.random.default_rng(seed)
    true = rng.normal(8.9, 0.2, n)
    return pd.DataFrame(
        {
            "true": true,
            "predicted": true + rng.normal(0, 0.1, n),
            "sigma": 0.1,
            "worse": true + rng.normal(0, 0.2, n),
            "as_good": true + rng.normal(0, 0.1, n),
        }
    )
