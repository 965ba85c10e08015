"""What the network reaches on a simulated sky, where the best that any network can reach is known.

A simulated sky of 6,000 galaxies is ingested, and a small ResNet is trained at 64 px and at each coarser level. On the
held-out galaxies it has to come close to the oracle, to beat the random forest and the mean, to have honest intervals,
and to lose by seeing less. On a null sky, a simulated sky that shows every galaxy with the looks of another one, it
must find nothing. Exit code 1 where one of these fails. A study that was stopped goes on where it was.

    python benchmarks/simulated_study.py
    python benchmarks/simulated_study.py --galaxies 600 --levels 16,4,1 --epochs 3 --folder /tmp/small
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flows.outputs import model_folder, trained_model_id, training_set_of
from flows.runtime import load_recipe
from galstore.cube.reader import open_cube
from galstore.emulator.sky.simulated import SimulatedSky
from modeling.evaluation.calibration import Conformal
from modeling.evaluation.comparison import Comparison, Difference
from modeling.evaluation.metrics import Regression
from modeling.models.checkpoint import load_model
from modeling.scoring.predict import predict
from schemas.features import Split

RECIPE = "simulated_study"
NULL_SEED = 4
LEAST_FALL = 0.25
"""Least share by which the RMSE falls from the coarsest to the finest level."""


@dataclass(slots=True)
class Checks:
    """A Markdown table, printed at the end, and how many of its rows missed their aim."""

    rows: list[str] = field(default_factory=list)
    n_missed: int = 0

    def add(self, what: str, measured: str, aim: str, *, met: bool) -> None:
        self.rows.append(f"| {what} | {measured} | {aim}: {'met' if met else '**missed**'} |")
        self.n_missed += not met

    def show(self) -> None:
        print("\n| simulated sky | measured | aim |\n|---|---|---|")
        print("\n".join(self.rows))


def galstore(*words: str) -> str:
    """Run one command of galstore and say so; what it wrote to stdout."""
    print("$ galstore", *words, file=sys.stderr, flush=True)
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "flows.cli", *words], check=True, stdout=subprocess.PIPE, text=True)
    print(f"  {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return done.stdout


def sets_of(overrides: list[str]) -> list[str]:
    return [word for one in overrides for word in ("--set", one)]


def judge(overrides: list[str], levels: str) -> pd.DataFrame:
    """Ingest, train and judge at these levels; held-out galaxies with everybody's predictions."""
    galstore("ingest", RECIPE, *sets_of(overrides))
    galstore("sweep", RECIPE, "--levels", levels, *sets_of(overrides), "--json")
    return pd.read_csv(load_recipe(RECIPE, overrides).output.folder / "sweep" / "predictions.csv")


def draw_null_sky(folder: Path, n_galaxies: int, seed: int) -> list[str]:
    """A null sky as a folder of JPEGs with a catalog; the overrides that make it the survey."""
    cutouts, catalog = folder / "cutouts", folder / "catalog.csv"
    if not catalog.is_file():
        cutouts.mkdir(parents=True, exist_ok=True)
        sky = SimulatedSky(seed=seed, n_galaxies=n_galaxies, n_new=0, informative=False)
        rows = sky.catalog().drop_duplicates("objID")
        rows = rows[rows["oh_p50"] != -9999]
        drawings = [(cutouts / f"{one}.jpg", sky.cutout(one, (0.0, 0.0), 0.296, 128, 128)) for one in rows["objID"]]
        with multiprocessing.get_context("spawn").Pool() as pool:
            pool.starmap(draw_one, drawings, chunksize=64)
        rows.to_csv(catalog, index=False)
    return [
        f"emulator={{ catalog = '{catalog}', cutouts = '{cutouts}' }}",
        "survey.name='simulated-null-sky'",
        "survey.selection='labelled'",
        "survey.columns=['ra', 'dec', 'oh_p50', 'modelMag_g', 'modelMag_r', 'modelMag_i']",
    ]


def draw_one(path: Path, draw: Any) -> None:
    path.write_bytes(draw())


def compare(galaxies: pd.DataFrame, first: str, second: str) -> Difference:
    """Difference of RMSE, first - second, by a paired bootstrap over the galaxies that both predict."""
    known = galaxies[["true", first, second]].dropna()
    rng = np.random.default_rng(0)
    return Comparison.of(known["true"], known[first], known[second], rng=rng).rmse


def told(difference: Difference) -> str:
    return f"{difference.value:+.4f} dex (95 %: {difference.low_95:+.4f} to {difference.high_95:+.4f})"


def check_network(checks: Checks, galaxies: pd.DataFrame, network: str) -> None:
    """Close to the oracle, and better than those who see no pixel."""
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
            f"RMSE of {network} less that of the {baseline}", told(difference), "below 0", met=difference.high_95 < 0
        )


def check_intervals(checks: Checks, overrides: list[str], galaxies: pd.DataFrame, network: str) -> None:
    """Intervals learnt on the validation galaxies hold as many held-out ones as they say."""
    recipe = load_recipe(RECIPE, overrides)
    cube = open_cube(recipe.store.path)
    training_set = training_set_of(recipe, cube)
    rows = training_set.indices(Split.VALIDATION)
    model = load_model(model_folder(recipe, trained_model_id(recipe, training_set)))
    pixels = cube.read_pixels(recipe.network.level, training_set.rows[rows])
    intervals = Conformal.of(training_set.labels[rows], predict(model, pixels, views=recipe.score.views).mean)
    low, high = intervals.interval(galaxies[network], 0.68)
    share = float(np.mean(galaxies["true"].between(low, high)))
    checks.add(
        f"held-out galaxies in their 68 % interval, learnt on {rows.size:,} validation galaxies",
        f"{100 * share:.1f} %", "68 +- 3 %", met=abs(share - 0.68) <= 0.03,
    )  # fmt: skip


def check_resolution(checks: Checks, galaxies: pd.DataFrame) -> None:
    """More pixels never make it worse, and all of them together much better."""
    names = [name for name in galaxies.columns if name.startswith("network_")]
    rmse = [Regression.of(galaxies["true"], galaxies[name]).rmse for name in names]
    for finer, coarser in pairwise(names):
        difference = compare(galaxies, finer, coarser)
        checks.add(
            f"RMSE of {finer} less that of {coarser}", told(difference), "not above 0", met=difference.low_95 <= 0
        )
    fall = 1 - rmse[0] / rmse[-1]
    figures = ", ".join(f"{name.removeprefix('network_')} px {one:.4f}" for name, one in zip(names, rmse, strict=True))
    checks.add(
        f"fall of RMSE from {names[-1]} to {names[0]}",
        f"{100 * fall:.0f} % ({figures})",
        ">= 25 %",
        met=fall >= LEAST_FALL,
    )


def check_null(checks: Checks, galaxies: pd.DataFrame, network: str) -> None:
    """Where nothing can be learnt, nothing is claimed."""
    difference = compare(galaxies, network, "mean")
    checks.add(
        f"null sky: RMSE of {network} less that of the mean, {len(galaxies):,} held-out galaxies",
        told(difference), "no gain: interval reaches 0", met=difference.high_95 >= 0,
    )  # fmt: skip


def main() -> int:
    """Run the study; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--galaxies", type=int, default=6000, help="of the simulated sky")
    parser.add_argument("--null-galaxies", type=int, default=2000, help="of the null sky")
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
    galaxies = judge(overrides, given.levels)
    check_network(checks, galaxies, network)
    check_intervals(checks, overrides, galaxies, network)
    check_resolution(checks, galaxies)
    null_folder = given.folder / "null"
    null_overrides = overrides_in(null_folder, *draw_null_sky(null_folder, given.null_galaxies, NULL_SEED))
    check_null(checks, judge(null_overrides, finest), network)
    checks.show()
    print(f"\n{time.perf_counter() - started:.0f} s, {checks.n_missed} aims missed")
    return 1 if checks.n_missed else 0


if __name__ == "__main__":
    sys.exit(main())
