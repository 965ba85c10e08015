"""Best predictions that a simulated sky allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from schemas.recipes import Recipe

if TYPE_CHECKING:
    import pandas as pd


def simulated_limits(recipe: Recipe, object_ids: npt.NDArray[np.int64]) -> pd.DataFrame | None:
    """Predict with the oracle and from total colours; None for a real sky, or another label than metallicity.

    Returns
    -------
    DataFrame or None
        Columns `oracle` and `total_colours`, dex, in the order of `object_ids`.
    """
    section = recipe.emulator
    if section is None or not recipe.sky_is_simulated or recipe.train.target != "oh_p50":
        return None
    from galstore.emulator.sky.oracle import oracle_predictions
    from galstore.emulator.sky.simulated import SimulatedSky

    sky = SimulatedSky(seed=section.seed, n_galaxies=section.n_galaxies, n_new=section.n_new)
    return oracle_predictions(sky, object_ids)
