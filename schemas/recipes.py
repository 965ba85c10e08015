"""Recipes: complete TOML files that say what one run does. A misspelt key is an error that names the key."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from schemas.cube import LEVELS
from schemas.cutouts import Composite, CutoutScale, ScaleRule
from schemas.errors import RecipeError
from schemas.selection import Selection, selection_named

EMULATOR = "emulator"
"""The `survey.base_url` that stands for the loopback emulator described under `[emulator]`."""


class Section(BaseModel):
    """A part of a recipe: frozen, and no key but its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StoreSection(Section):
    """Where the cube is."""

    path: str = Field(description="Folder of the cube, or s3://bucket/prefix")


class OutputSection(Section):
    """Where models, predictions and reports go."""

    folder: Path


class SurveySection(Section):
    """Which service is asked, for what, and how politely."""

    name: str = Field(description="Name of the survey, kept in the cube")
    base_url: str = Field(description="Root of the service, or 'emulator' for the loopback emulator")
    data_release: Annotated[int, Field(ge=10, le=19)] = 14
    cutout_service: Literal["skyserver", "legacysurvey"] = Field(
        "skyserver", description="Who is asked for cutouts; the catalog is SkyServer's, or a file's"
    )
    cutout_base_url: str = Field("", description="Root of the cutout service where it is not base_url")
    layer: Literal["ls-dr9", "sdss"] = Field("ls-dr9", description="Of the Legacy Surveys viewer")
    selection: str = "wu_boada_2019"
    columns: tuple[str, ...] | None = Field(None, description="Columns asked for; all of the paper's query by default")
    catalog: Path | None = Field(
        None, description="File with the objects' ids and positions, instead of the service's own catalog"
    )
    limit: Annotated[int, Field(ge=0)] = Field(0, description="At most so many objects; 0 = all")
    where: str = Field("", description="Further condition in the survey's SQL, such as 'G.dec > 30'")
    since: date | None = Field(None, description="Only spectra observed on this day (UTC) or later")
    page_rows: Annotated[int, Field(ge=1, le=500_000)] = 50_000
    requests_per_second: Annotated[float, Field(gt=0)] = Field(25.0, description="Of all workers together")
    concurrency: Annotated[int, Field(ge=1, le=256)] = Field(
        8, description="Requests under way, of all workers together"
    )
    connect_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    read_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    attempts: Annotated[int, Field(ge=1, le=20)] = 5
    retry_budget_s: Annotated[float, Field(gt=0)] = Field(300.0, description="No retry of an object starts later")
    breaker_failures: Annotated[int, Field(ge=1)] = Field(20, description="Objects that fail in a row end the run")

    @model_validator(mode="after")
    def _cutouts_somewhere(self) -> SurveySection:
        lacking = self.cutout_service == "legacysurvey" and not self.cutout_base_url and self.base_url != EMULATOR
        if lacking:
            raise ValueError("cutout_service = 'legacysurvey' needs cutout_base_url, the root of the viewer")
        return self

    @property
    def composite(self) -> Composite:
        """Whose colours the cutouts have."""
        if self.cutout_service == "skyserver":
            return Composite.SKYSERVER
        return {"ls-dr9": Composite.LS_DR9, "sdss": Composite.LEGACY_SDSS}[self.layer]

    @property
    def is_whole(self) -> bool:
        """Whether a delivery has every row of the catalog, so that objects which it lacks have vanished."""
        return not (self.limit or self.where.strip() or self.since)

    @property
    def narrowed_selection(self) -> Selection:
        """The selection with this section's further conditions."""
        return selection_named(self.selection).narrowed(where=self.where, since=self.since)


class FaultSection(Section):
    """Share of cutout answers that the emulator spoils, each kind between 0 and 1."""

    too_many_requests: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="429 with Retry-After, in seconds or as a date"
    )
    server_error: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="500 whose body is a JPEG")
    outage_page: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="503 with an HTML page")
    truncated: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="200 with half of the JPEG")
    out_of_footprint: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="404 with a black JPEG; lasting")
    black_tile: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="200 with that black JPEG, as older releases answer; lasting"
    )
    flat_tile: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="200 with a tile of one colour; lasting")
    html_page: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="200 with an HTML page")
    error_message: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="200 with a text: error_message as CSV or JSON"
    )
    wrong_size: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="200 with an image of half the width and height"
    )
    not_a_jpeg: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="200 with a PNG")
    bomb: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="200 with a small JPEG that claims 30,000 x 30,000 pixels"
    )
    read_timeout: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="No answer until the client hangs up")
    connect_timeout: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="307 to an address where no connection comes about"
    )
    connection_reset: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="The connection is reset instead of an answer"
    )
    trailing_bytes: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="200 with the JPEG and bytes behind its end"
    )
    stuck_cache: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="200 with the image that another object got last"
    )
    client_error: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="400 with JSON; lasting")
    redirect_loop: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="302 to the same address, in a circle")
    lasting: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="Share of the spoiled objects, of the kinds that may pass, whose fault never does"
    )
    retry_after_s: Annotated[int, Field(ge=0)] = Field(1, description="What Retry-After asks for, seconds")


class EmulatorSection(Section):
    """What the loopback emulator plays: a simulated sky, or a folder of cutouts with a catalog."""

    n_galaxies: Annotated[int, Field(ge=0)] = Field(0, description="Simulated galaxies with spectra, in the catalog")
    n_new: Annotated[int, Field(ge=0)] = Field(0, description="Simulated galaxies without spectra, to be scored")
    seed: int = 0
    new_catalog: Path | None = Field(None, description="CSV (object_id, ra, dec) of the new galaxies, written at start")
    catalog: Path | None = Field(None, description="CSV of a folder of real cutouts")
    cutouts: Path | None = Field(None, description="Folder of JPEGs named by object id")
    faults: FaultSection = FaultSection()

    @model_validator(mode="after")
    def _one_sky(self) -> EmulatorSection:
        if (self.catalog is None) != (self.cutouts is None):
            raise ValueError("catalog and cutouts belong together: give both or neither")
        if (self.n_galaxies > 0) == (self.catalog is not None):
            raise ValueError("give either n_galaxies > 0 (simulated sky) or catalog and cutouts (folder)")
        return self


class CutoutSection(Section):
    """How the pixel scale follows from the object."""

    scale_rule: ScaleRule = ScaleRule.FIXED
    scale_arcsec: float = 0.296
    prepared: bool = Field(False, description="The service holds images already cut by the rule")

    @property
    def scale(self) -> CutoutScale:
        return CutoutScale(rule=self.scale_rule, arcsec_per_px=self.scale_arcsec, prepared=self.prepared)


class DaskSection(Section):
    """Who does the blocks."""

    scheduler: str = Field("", description="Address of a running scheduler; empty = a cluster of this machine's cores")
    workers: Annotated[int, Field(ge=0)] = Field(0, description="Worker processes; 0 = one a core")
    blocks_per_commit: Annotated[int, Field(ge=1)] = Field(16, description="Blocks of 1,024 objects in one commit")


class SplitSection(Section):
    """Shares of the labelled galaxies, by a stable hash of the object id or of the cell of the sky."""

    train: Annotated[float, Field(gt=0, le=1)] = 0.6
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    test: Annotated[float, Field(ge=0, lt=1)] = 0.2
    seed: int = 0
    by: Literal["object", "sky"] = Field("object", description="What is hashed: the object id, or its HEALPix cell")
    duplicate_arcsec: Annotated[float, Field(gt=0, le=60)] = Field(
        2.0, description="Objects this close are one galaxy and go to one part"
    )
    cell_order: Annotated[int, Field(ge=0, le=12)] = Field(5, description="HEALPix order of a cell: 5 is 1.8 deg")
    separation_deg: Annotated[float, Field(gt=0, le=10)] = Field(
        0.1, description="Split by sky: training objects this close to others' cells are left out"
    )

    @model_validator(mode="after")
    def _whole(self) -> SplitSection:
        if abs(self.train + self.validation + self.test - 1) > 1e-9:
            raise ValueError(f"train + validation + test = {self.train + self.validation + self.test:g}, must be 1")
        return self


class NetworkSection(Section):
    """The network and the level of the pyramid that it reads."""

    arch: Literal["resnet18", "resnet34", "resnet50", "resnet10w32"] = "resnet34"
    level: int = 128
    weights: str = Field("none", description="'none', 'imagenet' (torchvision's cached file) or a path")
    dropout: tuple[float, float] = Field((0.25, 0.5), description="Dropout before each linear layer of the head")

    @model_validator(mode="after")
    def _level(self) -> NetworkSection:
        if self.level not in LEVELS:
            raise ValueError(f"level {self.level} is not in the cube: choose one of {', '.join(map(str, LEVELS))}")
        return self


Residence = Literal["auto", "resident", "streamed"]
"""Where training pixels are: in memory, or read from the cube while they are used."""


class TrainSection(Section):
    """How the network is trained."""

    target: str = "oh_p50"
    further_targets: tuple[str, ...] = Field(
        (), description="Labels that are learnt along with the target; an object without one counts for the others"
    )
    epochs: Annotated[int, Field(ge=1)] = 10
    batch_size: Annotated[int, Field(ge=2)] = 128
    method: Literal["one_cycle", "wu_boada_2019"] = Field(
        "one_cycle",
        description="one_cycle: AdamW, weights averaged. wu_boada_2019: SGD, body frozen for 2 epochs, then cosine "
        "restarts after 1, 1, 2, 4 ... epochs at rates of 0.01, 0.1 and 1 times the head's",
    )
    loss: Literal["rmse", "gaussian"] = Field(
        "rmse", description="gaussian: the likelihood of a normal error whose sigma is predicted too"
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(0.01, description="Largest rate of the head")
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    patience: Annotated[int, Field(ge=0)] = Field(0, description="Stop after so many epochs without a gain; 0 = never")
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    pixels: Residence = Field("auto", description="In memory where half of what is free suffices, else streamed")
    save_every_s: Annotated[float, Field(ge=0)] = Field(
        60.0, description="A killed run goes on from its last saved step; it is saved after so many seconds"
    )

    @model_validator(mode="after")
    def _targets(self) -> TrainSection:
        if len(set(self.targets)) < len(self.targets):
            raise ValueError(f"targets {', '.join(self.targets)}: name each label once")
        return self

    @property
    def targets(self) -> tuple[str, ...]:
        """Every label that is learnt, the one that is scored first."""
        return (self.target, *self.further_targets)

    def identity(self) -> dict[str, object]:
        """What the weights depend on: all but where the work is done and how often it is saved."""
        return self.model_dump(mode="json", exclude={"device", "pixels", "save_every_s"})


class ScoreSection(Section):
    """Which new catalog is scored."""

    catalog: Path | None = None
    model: str = Field(
        "",
        description="Id or promoted name of a model under the output folder; several, as a list or with commas between "
        "them, are an ensemble; empty = this recipe's own",
    )
    views: Literal[1, 8] = 8
    batch_size: Annotated[int, Field(ge=1)] = 256
    workers: Annotated[int, Field(ge=0)] = Field(
        0, description="Dask worker processes that score, each with a network (and a GPU); 0 = this process"
    )

    @field_validator("model", mode="before")
    @classmethod
    def _several(cls, value: object) -> object:
        return ",".join(map(str, value)) if isinstance(value, list | tuple) else value

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that is named."""
        return tuple(name.strip() for name in self.model.split(",") if name.strip())


class Recipe(Section):
    """One whole run."""

    name: str
    store: StoreSection
    output: OutputSection
    survey: SurveySection
    emulator: EmulatorSection | None = None
    cutouts: CutoutSection = CutoutSection()
    dask: DaskSection = DaskSection()
    split: SplitSection = SplitSection()
    network: NetworkSection = NetworkSection()
    train: TrainSection = TrainSection()
    score: ScoreSection = ScoreSection()

    @property
    def cutout_scale(self) -> CutoutScale:
        """The scale rule of the run's cutouts, and whose colours they have."""
        return replace(self.cutouts.scale, composite=self.survey.composite)

    @property
    def sky_is_simulated(self) -> bool:
        """Whether the survey is a made-up sky, so that its numbers say nothing about galaxies."""
        return self.survey.base_url == EMULATOR and self.emulator is not None and self.emulator.n_galaxies > 0

    @model_validator(mode="after")
    def _emulator_described(self) -> Recipe:
        if self.survey.base_url == EMULATOR and self.emulator is None:
            raise ValueError("survey.base_url = 'emulator' needs a section [emulator]")
        return self


def parse_recipe(text: str, *, origin: str, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from TOML, with `section.key=value` put over it.

    Parameters
    ----------
    text
        TOML.
    origin
        What error messages call it: a path or a name.
    overrides
        `section.key=value`, where value is TOML (`3`, `true`, `[1, 2]`) or, failing that, a plain string.

    Raises
    ------
    RecipeError
        Not TOML, an unknown key, or a value of the wrong type or range; the message names the key.

    Examples
    --------
    >>> parse_recipe("", origin="empty.toml")
    Traceback (most recent call last):
    ...
    schemas.errors.RecipeError: empty.toml: name: Field required; store: Field required; ...
    """
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{origin} is not TOML: {error}") from error
    for override in overrides:
        _apply_override(tree, override)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(f"{origin}: {'; '.join(_sentence(problem) for problem in error.errors())}") from error


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise RecipeError(f"override {override!r} is not of the form section.key=value, as in survey.limit=500")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise RecipeError(f"override {override!r}: {name} is a value, not a section")
    tree[path[-1]] = parsed


def _sentence(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"]) or "recipe"
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{where}'{_closest(problem['loc'])}"
    return f"{where}: {problem['msg'].removeprefix('Value error, ')}"


def _closest(location: tuple[str | int, ...]) -> str:
    section: Any = Recipe
    for name in location[:-1]:
        annotation = section.model_fields[name].annotation
        section = next(a for a in (annotation, *getattr(annotation, "__args__", ())) if hasattr(a, "model_fields"))
    known = list(section.model_fields)
    close = get_close_matches(str(location[-1]), known, n=1)
    return f" (did you mean '{close[0]}'?)" if close else f" (known: {', '.join(known)})"
