"""Commands that evaluate a table of predictions and draw the paper's figures from it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.options import AsJson
from flows.terminal import escaped, stdout

if TYPE_CHECKING:
    from rich.table import Table

    from flows.engine.figure_data import FigureInputs
    from modeling.evaluation.comparison import PairedComparison
    from modeling.evaluation.evaluate import EvaluationResult
    from modeling.evaluation.metrics import BinMetrics
    from modeling.figures.paper import PaperFigure
    from modeling.figures.paper_numbers import Measurement

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

NUMBERS_FILE = "numbers.json"


def register_commands(app: typer.Typer) -> None:
    """Add the commands to the `galstore` command."""
    app.command()(evaluate)
    app.command()(figures)


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
    from modeling.evaluation.evaluate import EvaluatedColumns, evaluate_predictions

    columns = EvaluatedColumns(true=true, predicted=predicted, sigma=sigma, against=against)
    table = read_catalog_file(predictions)
    scores = evaluate_predictions(table, columns, bin_width=bin_width, n_resamples=resamples, seed=seed)
    if as_json:
        typer.echo(json.dumps({"predictions": str(predictions), **scores.to_dict()}, indent=2, allow_nan=False))
        return
    out = stdout()
    for part in _parts(scores):
        out.print(part, soft_wrap=isinstance(part, str))


def _parts(scores: EvaluationResult) -> Iterator[Table | str]:
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


def _metrics_table(scores: EvaluationResult) -> Table:
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


def _comparison_table(comparison: PairedComparison, predicted: str, against: str) -> Table:
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


def figures(
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS", help="CSV, Parquet, ECSV, FITS or VOTable, one row a galaxy")
    ],
    *,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the figures go")] = Path("figures"),
    true: Annotated[str | None, typer.Option(metavar="NAME", help="Column of true values; by default oh_p50")] = None,
    predicted: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of predictions; by default prediction")
    ] = None,
    mass: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of log(M / solar mass); by default lgm_tot_p50")
    ] = None,
    predicted_mass: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of predicted log(M / solar mass)")
    ] = None,
    sfr: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of log star formation rate; by default sfr_tot_p50")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(metavar="CUBE", help="Cutouts of Figure 1, and labels that the file lacks, by object id"),
    ] = None,
    id_column: Annotated[
        str | None, typer.Option("--id", metavar="NAME", help="Column of object ids; by default objID or object_id")
    ] = None,
    sweep: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV of Figure 4: predictor,level,rmse,nmad. Rows of `network` make the curve; rows without a level "
            "are baselines, drawn as lines",
        ),
    ] = None,
    format: Annotated[str, typer.Option(help="png or pdf")] = "png",  # noqa: A002 - the word that users know
    simulated: Annotated[
        bool, typer.Option("--simulated", help="The galaxies are made up: say so on every figure")
    ] = False,
) -> None:
    """Draw the figures of Wu & Boada (2019) from a table of predictions, and say which could not be drawn and why.

    The numbers behind them are printed beside the paper's, and kept in numbers.json. Rows without a finite value are
    left out of the figures that need it, and counted; -9999 counts as missing.

    Example: galstore figures predictions.csv --store sdss/cube --sweep sweep.csv --format pdf
    """
    from modeling.figures.style import FORMATS
    from schemas.errors import ContractError

    if format not in FORMATS:
        raise ContractError(f"--format {format!r} is unknown: choose one of {', '.join(FORMATS)}")
    if out.exists() and not out.is_dir():
        raise ContractError(f"--out {out} is a file: give a folder")

    from flows.engine.figure_data import read_figure_inputs
    from modeling.figures.paper import draw_paper_figures
    from modeling.figures.paper_numbers import measure_paper_numbers
    from schemas.catalog import COLUMN

    inputs = read_figure_inputs(
        predictions,
        columns={
            "true": true,
            "predicted": predicted,
            "log_mass": mass,
            "predicted_log_mass": predicted_mass,
            "log_sfr": sfr,
        },
        id_column=id_column,
        store=store,
        sweep=sweep,
    )
    symbol = COLUMN[inputs.target].symbol if inputs.target in COLUMN else ""
    is_simulated = simulated or inputs.simulated
    drawn = draw_paper_figures(inputs.galaxies, label=symbol or inputs.target, simulated=is_simulated)
    if all(one.figure is None for one in drawn):
        reasons = "; ".join(dict.fromkeys(one.reason for one in drawn))
        raise ContractError(f"no figure can be drawn from {predictions}: {reasons}")
    # a column that the catalog does not know is taken for what the paper predicts
    of_metallicity = inputs.target == "oh_p50" or inputs.target not in COLUMN
    numbers = measure_paper_numbers(inputs.galaxies, of_metallicity=of_metallicity)
    write_figures(out, format, drawn)
    (out / NUMBERS_FILE).write_text(_numbers_json(inputs, drawn, numbers, is_simulated), encoding="utf-8")
    tell_figures(out, format, drawn, numbers, n_rows=inputs.n_rows)


def write_figures(out: Path, format: str, drawn: list[PaperFigure]) -> None:  # noqa: A002
    """Write each figure as a file named after it."""
    from modeling.figures.style import figure_bytes

    out.mkdir(parents=True, exist_ok=True)
    for one in drawn:
        if one.figure is not None:
            (out / f"{one.name}.{format}").write_bytes(figure_bytes(one.figure, format))


def tell_figures(out: Path, format: str, drawn: list[PaperFigure], numbers: list[Measurement], *, n_rows: int) -> None:  # noqa: A002
    """Print what was drawn, what was not and why, and the numbers."""
    from rich.table import Table

    terminal = stdout()
    for one in drawn:
        if one.figure is None:
            terminal.print(f"left out   {one.name}: {escaped(one.reason)}", soft_wrap=True)
            continue
        counted = f", {one.n_galaxies:,} galaxies" if one.n_galaxies else ""
        lacking = f", {one.n_left_out:,} of {n_rows:,} rows left out" if one.n_left_out else ""
        path = escaped(out / f"{one.name}.{format}")
        terminal.print(f"drawn      {path}: {one.title}{counted}{lacking}", soft_wrap=True)
    if numbers:
        table = Table(show_edge=False)
        table.add_column("measured [dex]")
        for heading in ("here", "Wu & Boada 2019", "galaxies"):
            table.add_column(heading, justify="right")
        for number in numbers:
            table.add_row(number.name, number.told, number.paper_told, f"{number.n_galaxies:,}")
        terminal.print(table)


def _numbers_json(
    inputs: FigureInputs, drawn: list[PaperFigure], numbers: list[Measurement], is_simulated: bool
) -> str:
    """What was measured, from which columns, as JSON; NaN is null."""

    def plain(measurement: Measurement) -> dict[str, object]:
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(measurement).items()
        }

    told = {
        "simulated": is_simulated,
        "rows": inputs.n_rows,
        "columns": dict(inputs.sources),
        "left_out": {one.name: one.reason for one in drawn if one.figure is None},
        "numbers": [plain(number) for number in numbers],
    }
    return json.dumps(told, indent=2, allow_nan=False) + "\n"
