"""Commands that evaluate a table of predictions and draw the paper's figures from it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.options import AsJson, PredictionsArgument, json_text, print_json
from flows.commands.tables import new_table
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
    predictions: PredictionsArgument,
    *,
    true: Annotated[str, typer.Option(metavar="NAME", help="Column of true values")],
    predicted: Annotated[str, typer.Option(metavar="NAME", help="Column of predictions, in the same unit")],
    sigma: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of predicted sigmas; their calibration is checked")
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of a second predictor, to compare with the first")
    ] = None,
    bin_width: Annotated[float, typer.Option("--bin", help="Width of the bins of the true value")] = 0.1,
    resamples: Annotated[int, typer.Option(min=100, help="Number of bootstrap resamples")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap")] = 0,
    as_json: AsJson = False,
) -> None:
    """Evaluate predictions: RMSE, NMAD, bias, R² and outliers with bootstrap intervals, and metrics in bins.

    Rows with a null, NaN or -9999 are omitted and counted. The result depends on the file and the seed, not on the
    order of the rows.

    Example: galstore evaluate predictions.csv --true oh_p50 --predicted prediction --against forest
    """
    from galstore.survey.catalog_files.reader import read_catalog_file
    from modeling.evaluation.evaluate import EvaluatedColumns, evaluate_predictions

    columns = EvaluatedColumns(true=true, predicted=predicted, sigma=sigma, against=against)
    table = read_catalog_file(predictions)
    result = evaluate_predictions(table, columns, bin_width=bin_width, n_resamples=resamples, seed=seed)
    if as_json:
        print_json({"predictions": str(predictions), **result.to_dict()})
        return
    out = stdout()
    for part in _result_parts(result):
        out.print(part, soft_wrap=isinstance(part, str))


def _result_parts(result: EvaluationResult) -> Iterator[Table | str]:
    yield f"{result.n:,} of {result.n_rows:,} rows are evaluated"
    for reason, n in result.left_out.items():
        yield f"  {n:,} left out: {escaped(reason)}"
    yield _metrics_table(result)
    if result.pit_counts is not None:
        shares = " ".join(f"{n / result.n:.1%}" for n in result.pit_counts)
        yield f"share of rows in each tenth of the PIT, 10.0% for a calibrated sigma: {shares}"
    yield _bins_table(result.bins, result.columns.true)
    if result.comparison is not None:
        yield _comparison_table(result.comparison, result.columns.predicted, str(result.columns.against))


def _metrics_table(result: EvaluationResult) -> Table:
    columns = ("value", "68 %", "95 %")
    table = new_table("metric", *columns, right=columns, title=f"{result.columns.predicted} of {result.columns.true}")
    table.caption = f"intervals: {result.n_resamples:,} bootstrap resamples, seed {result.seed}"
    for name, metric in result.metrics.items():
        title, number_format = METRIC_TITLES[name]
        numbers = (metric.value, metric.low_68, metric.high_68, metric.low_95, metric.high_95)
        value, *ends = ("-" if math.isnan(number) else number_format.format(number) for number in numbers)
        table.add_row(title, value, f"{ends[0]} ... {ends[1]}", f"{ends[2]} ... {ends[3]}")
    return table


def _bins_table(bins: Sequence[BinMetrics], true: str) -> Table:
    columns = ("n", "RMSE", "NMAD", "bias")
    table = new_table("bin", *columns, right=columns, title=f"bins of {true}")
    n_decimals = max(len(f"{row.low:.12g}".partition(".")[2]) for row in bins)
    for row in bins:
        span = f"{row.low:.{n_decimals}f} ... {row.high:.{n_decimals}f}"
        table.add_row(span, f"{row.n:,}", f"{row.rmse:.5f}", f"{row.nmad:.5f}", f"{row.bias:.4f}")
    return table


def _comparison_table(comparison: PairedComparison, predicted: str, against: str) -> Table:
    columns, title = ("difference", "95 %"), f"{predicted} less {against}, on the same rows"
    table = new_table("metric", *columns, "verdict", right=columns, title=title)
    for name, difference in (("RMSE", comparison.rmse), ("NMAD", comparison.nmad)):
        better = predicted if difference.value < 0 else against
        verdict = f"{escaped(better)} is better" if difference.is_significant else "no significant difference"
        interval = f"{difference.low_95:.5f} ... {difference.high_95:.5f}"
        table.add_row(name, f"{difference.value:.5f}", interval, verdict)
    return table


def figures(
    predictions: PredictionsArgument,
    *,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the figures")] = Path("figures"),
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
            help="CSV of Figure 4: predictor,level,rmse,nmad. Rows of `network` are the curve; rows without a level "
            "are baselines, drawn as lines",
        ),
    ] = None,
    format: Annotated[str, typer.Option(help="png or pdf")] = "png",  # noqa: A002 - the usual word
    simulated: Annotated[
        bool, typer.Option("--simulated", help="Mark every figure as one of simulated galaxies")
    ] = False,
) -> None:
    """Draw the figures of Wu & Boada (2019) from a table of predictions; report figures without data, and why.

    The numbers are printed beside the paper's and written to numbers.json. A figure omits rows without a finite value
    and counts them; -9999 is a missing value.

    Example: galstore figures predictions.csv --store sdss/cube --sweep sweep.csv --format pdf
    """
    _check_output(out, format)
    from flows.engine.figure_data import read_figure_inputs
    from modeling.figures.paper import draw_paper_figures
    from modeling.figures.paper_numbers import measure_paper_numbers
    from modeling.figures.style import figure_bytes
    from schemas.catalog import COLUMN
    from schemas.errors import ContractError

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
    if all(figure.figure is None for figure in drawn):
        reasons = "; ".join(dict.fromkeys(figure.reason for figure in drawn))
        raise ContractError(f"no figure can be drawn from {predictions}: {reasons}")
    # a column without an entry in the catalog schema is taken for the paper's quantity
    of_metallicity = inputs.target == "oh_p50" or inputs.target not in COLUMN
    numbers = measure_paper_numbers(inputs.galaxies, of_metallicity=of_metallicity)
    out.mkdir(parents=True, exist_ok=True)
    for figure in drawn:
        if figure.figure is not None:
            (out / f"{figure.name}.{format}").write_bytes(figure_bytes(figure.figure, format))
    (out / NUMBERS_FILE).write_text(_numbers_json(inputs, drawn, numbers, is_simulated), encoding="utf-8")
    _print_figures(out, format, drawn, inputs.n_rows)
    if numbers:
        stdout().print(_numbers_table(numbers))


def _check_output(out: Path, format: str) -> None:  # noqa: A002
    from modeling.figures.style import FORMATS
    from schemas.errors import ContractError

    if format not in FORMATS:
        raise ContractError(f"--format {format!r} is unknown: choose one of {', '.join(FORMATS)}")
    if out.exists() and not out.is_dir():
        raise ContractError(f"--out {out} is a file: give a folder")


def _print_figures(out: Path, format: str, drawn: Sequence[PaperFigure], n_rows: int) -> None:  # noqa: A002
    terminal = stdout()
    for figure in drawn:
        if figure.figure is None:
            terminal.print(f"left out   {figure.name}: {escaped(figure.reason)}", soft_wrap=True)
            continue
        n_galaxies = f", {figure.n_galaxies:,} galaxies" if figure.n_galaxies else ""
        n_left_out = f", {figure.n_left_out:,} of {n_rows:,} rows left out" if figure.n_left_out else ""
        path = escaped(out / f"{figure.name}.{format}")
        terminal.print(f"drawn      {path}: {figure.title}{n_galaxies}{n_left_out}", soft_wrap=True)


def _numbers_table(numbers: Sequence[Measurement]) -> Table:
    columns = ("here", "Wu & Boada 2019", "galaxies")
    table = new_table("measured [dex]", *columns, right=columns)
    for number in numbers:
        table.add_row(number.name, number.text, number.paper_text, f"{number.n_galaxies:,}")
    return table


def _numbers_json(
    inputs: FigureInputs, drawn: Sequence[PaperFigure], numbers: Sequence[Measurement], is_simulated: bool
) -> str:
    return json_text(
        {
            "simulated": is_simulated,
            "rows": inputs.n_rows,
            "columns": inputs.sources,
            "left_out": {figure.name: figure.reason for figure in drawn if figure.figure is None},
            "numbers": [asdict(number) for number in numbers],
        }
    )
