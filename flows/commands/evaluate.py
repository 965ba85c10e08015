"""Command that evaluates a file of predictions: metrics with intervals, and a comparison of two predictors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.cube import AsJson
from flows.terminal import escaped, stdout

if TYPE_CHECKING:
    from rich.table import Table

    from modeling.evaluation.comparison import Comparison
    from modeling.evaluation.evaluate import Scores
    from modeling.evaluation.residuals import BinMetrics

METRIC_TITLES = {
    "rmse": ("RMSE", "{:.5f}"),
    "nmad": ("NMAD", "{:.5f}"),
    "bias": ("bias", "{:.4f}"),
    "r2": ("R²", "{:.3f}"),
    "beyond_3_nmad": ("beyond 3 NMAD", "{:.2%}"),
    "beyond_0p3_dex": ("beyond 0.3 dex", "{:.2%}"),
    "crps": ("CRPS", "{:.5f}"),
    "coverage_68": ("in its 68 % interval", "{:.2%}"),
    "coverage_95": ("in its 95 % interval", "{:.2%}"),
}


def register_commands(app: typer.Typer) -> None:
    """Add the command to the `galstore` command."""
    app.command()(evaluate)


def evaluate(
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS", help="CSV, Parquet, ECSV, FITS or VOTable, a row an object")
    ],
    *,
    true: Annotated[str, typer.Option(metavar="NAME", help="Column of true values")],
    predicted: Annotated[str, typer.Option(metavar="NAME", help="Column of predictions, in the same unit")],
    sigma: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Column of the predictions' own standard deviations: are they true?"),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of a second predictor: which one is better?")
    ] = None,
    bin_width: Annotated[float, typer.Option("--bin", help="Width of the bins of the true value")] = 0.1,
    resamples: Annotated[int, typer.Option(min=100, help="Of the bootstrap")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap")] = 0,
    as_json: AsJson = False,
) -> None:
    """Print how good predictions are: RMSE, NMAD, bias, R² and outliers with bootstrap intervals, and bins.

    Rows with a null, NaN or -9999 are left out and counted. The same file and seed give the same numbers, whatever
    the order of its rows.

    Example: galstore evaluate predictions.csv --true oh_p50 --predicted prediction --against forest
    """
    from galstore.survey.catalog_files.reader import read_catalog_file
    from modeling.evaluation.evaluate import ScoredColumns, score_predictions

    columns = ScoredColumns(true=true, predicted=predicted, sigma=sigma, against=against)
    table = read_catalog_file(predictions)
    scores = score_predictions(table, columns, bin_width=bin_width, n_resamples=resamples, seed=seed)
    if as_json:
        typer.echo(json.dumps({"predictions": str(predictions), **scores.to_dict()}, indent=2, allow_nan=False))
        return
    out = stdout()
    for part in _parts(scores):
        out.print(part, soft_wrap=isinstance(part, str))


def _parts(scores: Scores) -> Iterator[Table | str]:
    yield f"{scores.n:,} of {scores.n_rows:,} rows count"
    for reason, n in scores.left_out.items():
        yield f"  {n:,} left out: {escaped(reason)}"
    yield _metrics_table(scores)
    if scores.pit_counts is not None:
        shares = " ".join(f"{n / scores.n:.1%}" for n in scores.pit_counts)
        yield f"tenths of the PIT, 10.0% each where sigma is right: {shares}"
    yield _bins_table(scores.bins, scores.columns.true)
    if scores.comparison is not None:
        yield _comparison_table(scores.comparison, scores.columns.predicted, str(scores.columns.against))


def _metrics_table(scores: Scores) -> Table:
    table = _table(f"{scores.columns.predicted} of {scores.columns.true}", "metric", "value", "68 %", "95 %")
    table.caption = f"intervals: {scores.n_resamples:,} bootstrap resamples, seed {scores.seed}"
    for name, one in scores.metrics.items():
        title, number = METRIC_TITLES[name]
        value, *ends = (
            "-" if one_end != one_end else number.format(one_end)  # noqa: PLR0124 - NaN differs from itself
            for one_end in (one.value, one.low_68, one.high_68, one.low_95, one.high_95)
        )
        table.add_row(title, value, f"{ends[0]} ... {ends[1]}", f"{ends[2]} ... {ends[3]}")
    return table


def _bins_table(bins: tuple[BinMetrics, ...], true: str) -> Table:
    table = _table(f"bins of {true}", "bin", "n", "RMSE", "NMAD", "bias")
    n_decimals = max(len(f"{one.low:.12g}".partition(".")[2]) for one in bins)
    for one in bins:
        span = f"{one.low:.{n_decimals}f} ... {one.high:.{n_decimals}f}"
        table.add_row(span, f"{one.n:,}", f"{one.rmse:.5f}", f"{one.nmad:.5f}", f"{one.bias:.4f}")
    return table


def _comparison_table(comparison: Comparison, predicted: str, against: str) -> Table:
    table = _table(f"{predicted} less {against}, on the same rows", "metric", "difference", "95 %", "verdict")
    for title, one in (("RMSE", comparison.rmse), ("NMAD", comparison.nmad)):
        better = predicted if one.value < 0 else against
        verdict = f"{escaped(better)} is better" if one.is_significant else "not told apart: zero is inside"
        table.add_row(title, f"{one.value:.5f}", f"{one.low_95:.5f} ... {one.high_95:.5f}", verdict)
    return table


def _table(title: str, first: str, *numbers: str) -> Table:
    from rich.table import Table

    table = Table(title=escaped(title), title_justify="left", caption_justify="left", show_edge=False)
    table.add_column(first)
    for heading in numbers:
        table.add_column(heading, justify="left" if heading == "verdict" else "right")
    return table
