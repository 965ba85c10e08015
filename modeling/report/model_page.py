"""The page of the model: how good it is, beside what it has to beat, and where its numbers come from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modeling.evaluation.metrics import Regression
from modeling.figures import predictions as figures
from modeling.models.training_log import EpochRecord
from modeling.report.pages import Heading, IngestCounts, Picture, picture, write_page
from schemas.errors import ContractError

NETWORK, MEAN, ORACLE, COLOURS = "network", "mean", "oracle", "colours"
FOREST, FULL_FOREST = "forest", "full_forest"
"""Keys of `Report.predictors` that the verdict speaks of; others are listed by their own names."""

TITLES = {
    NETWORK: "this network",
    MEAN: "mean of the training labels",
    FOREST: "random forest on g, r, i magnitudes",
    FULL_FOREST: "random forest on all magnitudes",
    ORACLE: "oracle: best that the simulated sky allows",
    COLOURS: "best that total colours alone allow",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Labelled objects that the network was not trained on, with what it says about them."""

    rows: str
    """'test' or 'validation': the split that they are."""
    object_id: NDArray[np.int64]
    true: NDArray[np.float64]
    predicted: NDArray[np.float64]
    view_spread: NDArray[np.float64]
    read_cutouts: Callable[[NDArray[np.int64]], NDArray[np.uint8]]
    """Positions within this evaluation -> (n, y, x, band) uint8, bands in the order of red, green and blue. Called
    once, for the objects in the gallery alone."""

    def __post_init__(self) -> None:
        lengths = {len(values) for values in (self.object_id, self.true, self.predicted, self.view_spread)}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(f"the evaluation's columns have lengths {sorted(lengths)}: give equal ones of at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where the numbers come from."""

    model_id: str
    training_set: str
    snapshot: str
    versions: Mapping[str, str]
    recipe: str
    """TOML, as it was run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCatalog:
    """How many objects a new catalog has, and how many of them have a prediction."""

    n: int
    n_scored: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that the report shows."""

    title: str
    survey: str
    simulated: bool
    """True where the sky was made up, so that no number says anything about galaxies."""
    ingest: IngestCounts
    splits: Mapping[str, int]
    """Labelled objects of 'train', 'validation' and 'test'."""
    target: str
    """Name of the quantity, for axes and sentences, as in '12 + log(O/H)'."""
    evaluation: Evaluation
    predictors: Mapping[str, Regression | str]
    """What each predictor reaches on the evaluated rows, by `NETWORK`, `MEAN`, `FOREST`, ... or a name of its own;
    a text says why there is no number."""
    training_log: tuple[EpochRecord, ...]
    best_epoch: int
    provenance: Provenance
    new_catalog: NewCatalog | None = None
    """The catalog that was scored last; its own page shows it."""


def write_report(path: Path, report: Report) -> None:
    """Write a report as one HTML file.

    Parameters
    ----------
    path
        Of the file; it is replaced at once when the new one is complete.
    report
        What to show.

    Raises
    ------
    ContractError
        `report.predictors` holds no numbers of the network.
    """
    heading = Heading(
        title=report.title, survey=report.survey, simulated=report.simulated, model_id=report.provenance.model_id
    )
    write_page(
        path,
        "report.html.j2",
        heading,
        report=report,
        verdict=verdict(report),
        predictors=_predictor_table(report),
        gallery=_gallery(report),
        images=_images(report),
    )


def verdict(report: Report) -> str:
    """The result in one or two sentences: errors, what they are better than, and how far the best possible is.

    Raises
    ------
    ContractError
        There are no numbers of the network.
    """
    network = report.predictors.get(NETWORK)
    if not isinstance(network, Regression):
        raise ContractError(f"predictors[{NETWORK!r}] is {network!r}: give the Regression of the network")
    sentence = (
        f"On {network.n:,} {report.evaluation.rows} galaxies the network predicts {report.target} with RMSE "
        f"{network.rmse:.4f} dex and NMAD {network.nmad:.4f} dex"
    )
    rivals = []
    for key, name in ((MEAN, "the mean"), (FOREST, "a random forest on magnitudes")):
        other = report.predictors.get(key)
        if isinstance(other, Regression):
            change = 100 * (1 - network.rmse / other.rmse)
            rivals.append(f"{abs(change):.0f} % {'better' if change >= 0 else 'WORSE'} than {name} ({other.rmse:.4f})")
    sentence += f": {' and '.join(rivals)}." if rivals else "."
    oracle = report.predictors.get(ORACLE)
    if isinstance(oracle, Regression):
        gap = network.rmse - oracle.rmse
        sentence += f" The best that this sky allows is {oracle.rmse:.4f} dex; the gap is {gap:.4f} dex."
    return sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """One line of the table of predictors."""

    title: str
    result: Regression | None
    note: str
    relative_to_mean: float | None
    is_network: bool


def _predictor_table(report: Report) -> list[_Line]:
    mean = report.predictors.get(MEAN)
    lines = []
    for key, result in report.predictors.items():
        numbers = result if isinstance(result, Regression) else None
        relative = numbers.rmse / mean.rmse if numbers and isinstance(mean, Regression) and mean.rmse else None
        note = "" if isinstance(result, Regression) else result
        lines.append(
            _Line(
                title=TITLES.get(key, key),
                result=numbers,
                note=note,
                relative_to_mean=relative,
                is_network=key == NETWORK,
            )
        )
    return sorted(lines, key=lambda line: line.result.rmse if line.result else math.inf)


def _gallery(report: Report) -> Picture:
    shown = report.evaluation
    rows = figures.gallery_rows(shown.true, shown.predicted)
    wanted, place = np.unique(np.concatenate(list(rows.values())), return_inverse=True)
    cutouts = shown.read_cutouts(wanted)
    split = np.split(cutouts[place], np.cumsum([len(chosen) for chosen in rows.values()])[:-1])
    figure = figures.draw_gallery(dict(zip(rows, split, strict=True)), rows, shown.true, shown.predicted)
    listed = "; ".join(
        f"{title}: " + ", ".join(f"{shown.predicted[i]:.2f} ({shown.true[i]:.2f})" for i in chosen)
        for title, chosen in rows.items()
    )
    return picture(
        figure,
        alt=f"Cutouts of {report.survey} in seven rows of five, predicted (true) values: {listed}.",
        caption=f"Cutouts of {shown.rows} galaxies with their predicted (left, blue) and true (right, orange) values "
        "(Figure 1 of the paper).",
    )


def _images(report: Report) -> dict[str, Picture]:
    true, predicted = report.evaluation.true, report.evaluation.predicted
    result = Regression.of(true, predicted)
    numbers = {name: value for name, value in report.predictors.items() if isinstance(value, Regression)}
    pictures = {
        "comparison": picture(
            figures.draw_comparison(true, predicted, label=report.target),
            alt=f"Predicted against true {report.target} of {result.n} galaxies: RMSE {result.rmse:.4f}, NMAD "
            f"{result.nmad:.4f}, bias {result.bias:+.4f} dex, R² {result.r2:.3f}.",
            caption="Below: predicted against true values, with the median and, around it, RMSE and NMAD of each "
            "0.1-dex bin. Above: the same scatter, areas as the number of galaxies, lines for all galaxies (Figure 3).",
        ),
        "distributions": picture(
            figures.draw_distributions(true, predicted, label=report.target),
            alt=f"Histograms: true values have mean {true.mean():.3f} and standard deviation {true.std():.3f}, "
            f"predicted ones {predicted.mean():.3f} and {predicted.std():.3f}.",
            caption="Distributions of the true and the predicted values (Figure 2). Predictions spread less than the "
            "truth: a network that is unsure leans to the mean.",
        ),
        "predictors": picture(
            figures.draw_predictors({TITLES.get(name, name): value for name, value in numbers.items()}),
            alt="RMSE of each predictor: "
            + ", ".join(f"{TITLES.get(name, name)} {value.rmse:.4f}" for name, value in numbers.items())
            + " dex.",
            caption=f"RMSE and NMAD of all predictors on the same {result.n:,} galaxies.",
        ),
    }
    if report.training_log:
        last = report.training_log[-1]
        pictures["training"] = picture(
            figures.draw_training(report.training_log, best_epoch=report.best_epoch),
            alt=f"Validation RMSE falls from {report.training_log[0].rmse:.4f} to {last.rmse:.4f} dex in {last.epoch} "
            f"epochs; epoch {report.best_epoch} was kept.",
            caption="RMSE and NMAD of the validation galaxies after each epoch.",
        )
    return pictures
