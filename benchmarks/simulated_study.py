"""Performance of the network on a simulated sky, for which the best reachable error is known.

A simulated sky of 6,000 galaxies is ingested, and a small ResNet is trained at 64 px and at each coarser level. On the
held-out galaxies it must come close to the oracle, beat the random forest and the mean, have calibrated intervals, and
get worse with fewer pixels. On a null sky, whose galaxies have the appearance of other galaxies, it must not beat the
mean. The exit code is 1 if one of these checks fails. An interrupted study resumes.

    python benchmarks/simulated_study.py
    python benchmarks/simulated_study.py --galaxies 600 --levels 16,4,1 --epochs 3 --folder /tmp/small
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from flows.outputs import model_folder, trained_model_id, training_set_of
from flows.runtime import load_recipe
from galstore.cube.reader import open_cube
from galstore.emulator.sky.simulated import SimulatedSky
from galstore.emulator.survey import CutoutQuery
from modeling.evaluation.comparison import MetricDifference, PairedComparison
from modeling.evaluation.intervals import ConformalIntervals
from modeling.evaluation.metrics import Regression
from modeling.models.checkpoint import load_model
from modeling.scoring.predict import predict
from schemas.features import Split

RECIPE = "simulated_study"
NULL_SEED = 4
LEAST_FALL = 0.25
"""Smallest relative decrease of the RMSE from the coarsest to the finest level."""


@dataclass(slots=True)
class Checks:
    """Markdown table of checks with their aims, printed at the end."""

    rows: list[str] = field(default_factory=list)
    n_missed: int = 0

    def add(self, name: str, measured: str, aim: str, *, met: bool) -> None:
        self.rows.append(f"| {name} | {measured} | {aim}: {'met' if met else '**missed**'} |")
        self.n_missed += not met

    def show(self) -> None:
        print("\n| simulated sky | measured | aim |\n|---|---|---|")
        print("\n".join(self.rows))


def galstore(*words: str) -> str:
    """Run a galstore command, log it, and return its stdout."""
    print("$ galstore", *words, file=sys.stderr, flush=True)
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "flows.cli", *words], check=True, stdout=subprocess.PIPE, text=True)
    print(f"  {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return done.stdout


def sets_of(overrides: list[str]) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


def run_study(overrides: list[str], levels: str) -> pd.DataFrame:
    """Ingest, train and evaluate at these levels; return the predictions of all predictors for held-out galaxies."""
    galstore("ingest", RECIPE, *sets_of(overrides))
    galstore("sweep", RECIPE, "--levels", levels, *sets_of(overrides), "--json")
    return pd.read_csv(load_recipe(RECIPE, overrides).output.folder / "sweep" / "predictions.csv")


def draw_null_sky(folder: Path, n_galaxies: int, seed: int) -> list[str]:
    """Write a null sky as a folder of JPEGs with a catalog; return overrides that select it as the survey."""
    cutouts, catalog = folder / "cutouts", folder / "catalog.csv"
    if not catalog.is_file():
        cutouts.mkdir(parents=True, exist_ok=True)
        sky = SimulatedSky(seed=seed, n_galaxies=n_galaxies, n_new=0, informative=False)
        rows = sky.catalog().drop_duplicates("objID")
        rows = rows[rows["oh_p50"] != -9999]
        query = CutoutQuery(position_deg=(0.0, 0.0), scale_arcsec=0.296, size_px=(128, 128))
        drawings = [(cutouts / f"{object_id}.jpg", sky.cutout(object_id, query)) for object_id in rows["objID"]]
        with multiprocessing.get_context("spawn").Pool() as pool:
            pool.starmap(draw_one, drawings, chunksize=64)
        rows.to_csv(catalog, index=False)
    return [
        f"emulator={{ catalog = '{catalog}', cutouts = '{cutouts}' }}",
        "survey.name='simulated-null-sky'",
        "survey.selection='labelled'",
        "survey.columns=['ra', 'dec', 'oh_p50', 'modelMag_g', 'modelMag_r', 'modelMag_i']",
    ]


def draw_one(path: Path, draw: Callable[[], bytes]) -> None:
    path.write_bytes(draw())


def compare(galaxies: pd.DataFrame, first: str, second: str) -> MetricDifference:
    """Return the difference of RMSE, first - second, from a paired bootstrap over galaxies with both predictions."""
    known = galaxies[["true", first, second]].dropna()
    rng = np.random.default_rng(0)
    return PairedComparison.of(known["true"], known[first], known[second], rng=rng).rmse


def difference_text(difference: MetricDifference) -> str:
    return f"{difference.value:+.4f} dex (95 %: {difference.low_95:+.4f} to {difference.high_95:+.4f})"


def check_network(checks: Checks, galaxies: pd.DataFrame, network: str) -> None:
    """Check that the RMSE is close to the oracle's and lower than without images."""
    rmse = {name: Regression.of(galaxies["true"], galaxies[name]).rmse for name in (network, "oracle", "mean")}
    ratio = rmse[network] / rmse["oracle"]
    figures = f"{ratio:.3f} = {rmse[network]:.4f} / {rmse['oracle']:.4f} dex"
    checks.add(
        f"RMSE of {network} over the oracle's, {len(galaxies):,} held-out galaxies",
        figures,
        "<= 1.25",
        met=ratio <= 1.25,
    )
    for baseline in ("forest", "mean"):
        difference = compare(galaxies, network, baseline)
        checks.add(
            f"RMSE of {network} less that of the {baseline}",
            difference_text(difference),
            "below 0",
            met=difference.high_95 < 0,
        )


def check_intervals(checks: Checks, overrides: list[str], galaxies: pd.DataFrame, network: str) -> None:
    """Check the coverage of intervals from the validation galaxies on held-out galaxies."""
    recipe = load_recipe(RECIPE, overrides)
    cube = open_cube(recipe.store.path)
    training_set = training_set_of(recipe, cube)
    rows = training_set.indices(Split.VALIDATION)
    model = load_model(model_folder(recipe, trained_model_id(recipe, training_set)))
    pixels = cube.read_pixels(recipe.network.level, training_set.rows[rows])
    intervals = ConformalIntervals.of(training_set.labels[rows], predict(model, pixels, views=recipe.score.views).mean)
    half = intervals.half_widths(galaxies[network].to_numpy(dtype=np.float64), 0.68)
    share = float(np.mean(galaxies["true"].between(galaxies[network] - half, galaxies[network] + half)))
    checks.add(
        f"held-out galaxies in their 68 % interval, learnt on {rows.size:,} validation galaxies",
        f"{100 * share:.1f} %",
        "68 +- 3 %",
        met=abs(share - 0.68) <= 0.03,
    )


def check_resolution(checks: Checks, galaxies: pd.DataFrame) -> None:
    """Check that finer levels are never worse, and that the finest is much better than the coarsest."""
    names = [name for name in galaxies.columns if name.startswith("network_")]
    rmse = [Regression.of(galaxies["true"], galaxies[name]).rmse for name in names]
    for finer, coarser in pairwise(names):
        difference = compare(galaxies, finer, coarser)
        checks.add(
            f"RMSE of {finer} less that of {coarser}",
            difference_text(difference),
            "not above 0",
            met=difference.low_95 <= 0,
        )
    fall = 1 - rmse[0] / rmse[-1]
    figures = ", ".join(
        f"{name.removeprefix('network_')} px {value:.4f}" for name, value in zip(names, rmse, strict=True)
    )
    checks.add(
        f"fall of RMSE from {names[-1]} to {names[0]}",
        f"{100 * fall:.0f} % ({figures})",
        ">= 25 %",
        met=fall >= LEAST_FALL,
    )


def check_null(checks: Checks, galaxies: pd.DataFrame, network: str) -> None:
    """Check that the network does not beat the mean on the null sky."""
    difference = compare(galaxies, network, "mean")
    checks.add(
        f"null sky: RMSE of {network} less that of the mean, {len(galaxies):,} held-out galaxies",
        difference_text(difference),
        "no gain: interval reaches 0",
        met=difference.high_95 >= 0,
    )


def main() -> int:
    """Run the study and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--galaxies", type=int, default=6000, help="galaxies of the simulated sky")
    parser.add_argument("--null-galaxies", type=int, default=2000, help="galaxies of the null sky")
    parser.add_argument("--levels", default="64,32,16,8,4,2,1", help="sides in px, the finest first")
    parser.add_argument("--epochs", type=int, default=0, help="0 = as the recipe says")
    parser.add_argument("--folder", type=Path, default=Path("runs/simulated_study"))
    given = parser.parse_args()
    started = time.perf_counter()
    finest = given.levels.split(",")[0]
    network = f"network_{finest}"
    common = [f"network.level={finest}", *([f"train.epochs={given.epochs}"] if given.epochs else [])]

    def overrides_in(folder: Path, *more: str) -> list[str]:
        return [f"store.path='{folder / 'cube'}'", f"output.folder='{folder}'", *common, *more]

    checks = Checks()
    overrides = overrides_in(given.folder, f"emulator.n_galaxies={given.galaxies}")
    galaxies = run_study(overrides, given.levels)
    check_network(checks, galaxies, network)
    check_intervals(checks, overrides, galaxies, network)
    check_resolution(checks, galaxies)
    null_folder = given.folder / "null"
    null_overrides = overrides_in(null_folder, *draw_null_sky(null_folder, given.null_galaxies, NULL_SEED))
    check_null(checks, run_study(null_overrides, finest), network)
    checks.show()
    print(f"\n{time.perf_counter() - started:.0f} s, {checks.n_missed} aims missed")
    return 1 if checks.n_missed else 0


if __name__ == "__main__":
    sys.exit(main())
