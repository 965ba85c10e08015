"""Recipes: complete TOML files that describe one run. An unknown key is an error."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from schemas.cube import LEVELS
from schemas.cutouts import Composite, CutoutScale, ScaleRule
from schemas.errors import RecipeError
from schemas.selection import Selection, selection_named

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

EMULATOR = "emulator"
"""Value of `survey.base_url` that starts the loopback emulator described under `[emulator]`."""

_Share = Annotated[float, Field(ge=0, le=1)]
_Positive = Annotated[float, Field(gt=0)]
_Count = Annotated[int, Field(ge=0)]
_CountFromOne = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Frozen part of a recipe; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StoreSection(Section):
    """Location of the cube."""

    path: str = Field(description="Folder of the cube, or s3://bucket/prefix")


class OutputSection(Section):
    """Location of models, predictions and reports."""

    folder: Path


class SurveySection(Section):
    """Survey service, selection of objects, and limits of the client."""

    name: str = Field(description="Name of the survey, stored in the cube")
    base_url: str = Field(description="Root URL of the service, or 'emulator' for the loopback emulator")
    data_release: Annotated[int, Field(ge=10, le=19)] = 14
    cutout_service: Literal["skyserver", "legacysurvey"] = Field("skyserver", description="Service of the cutouts only")
    cutout_base_url: str = Field("", description="Root URL of the cutout service if it differs from base_url")
    layer: Literal["ls-dr9", "sdss"] = Field("ls-dr9", description="Layer of the Legacy Surveys viewer")
    selection: str = Field("wu_boada_2019", description="Named set of cuts")
    columns: tuple[str, ...] | None = Field(None, description="Catalog columns; default: those of the paper's query")
    catalog: Path | None = Field(None, description="File with ids and positions that replaces the service's catalog")
    limit: _Count = Field(0, description="Maximum number of objects; 0 = all")
    where: str = Field("", description="Further condition in the survey's SQL, such as 'G.dec > 30'")
    since: date | None = Field(None, description="Only spectra observed on this day (UTC) or later")
    page_rows: Annotated[int, Field(ge=1, le=500_000)] = Field(50_000, description="Rows of one page of the query")
    requests_per_second: _Positive = Field(25.0, description="Rate limit, shared by all workers")
    concurrency: Annotated[int, Field(ge=1, le=256)] = Field(8, description="Simultaneous requests of all workers")
    connect_timeout_s: _Positive = 10.0
    read_timeout_s: _Positive = 30.0
    attempts: Annotated[int, Field(ge=1, le=20)] = Field(5, description="Maximum number of requests for one object")
    retry_budget_s: _Positive = Field(300.0, description="Time after which an object is not retried")
    breaker_failures: _CountFromOne = Field(20, description="Consecutive failures that open the circuit breaker")

    @model_validator(mode="after")
    def _require_cutout_url(self) -> SurveySection:
        if self.cutout_service == "legacysurvey" and not self.cutout_base_url and self.base_url != EMULATOR:
            raise ValueError("cutout_service = 'legacysurvey' needs cutout_base_url, the root URL of the viewer")
        return self

    @property
    def composite(self) -> Composite:
        if self.cutout_service == "skyserver":
            return Composite.SKYSERVER
        return Composite.LS_DR9 if self.layer == "ls-dr9" else Composite.LEGACY_SDSS

    @property
    def is_whole(self) -> bool:
        """True if the query returns the whole catalog, so that a missing object has vanished from it."""
        return not (self.limit or self.where.strip() or self.since)

    @property
    def narrowed_selection(self) -> Selection:
        return selection_named(self.selection).narrowed(where=self.where, since=self.since)


class FaultSection(Section):
    """Shares of cutout responses with a fault, one share per kind of fault."""

    too_many_requests: _Share = Field(0.0, description="429 with Retry-After, in seconds or as a date")
    server_error: _Share = Field(0.0, description="500 whose body is a JPEG")
    outage_page: _Share = Field(0.0, description="503 with an HTML page")
    truncated: _Share = Field(0.0, description="200 with half of the JPEG")
    out_of_footprint: _Share = Field(0.0, description="404 with a black JPEG; permanent")
    black_tile: _Share = Field(0.0, description="200 with the same black JPEG, as in older releases; permanent")
    flat_tile: _Share = Field(0.0, description="200 with a tile of one colour; permanent")
    html_page: _Share = Field(0.0, description="200 with an HTML page")
    error_message: _Share = Field(0.0, description="200 with a text: error_message as CSV or JSON")
    wrong_size: _Share = Field(0.0, description="200 with an image of half the width and height")
    not_a_jpeg: _Share = Field(0.0, description="200 with a PNG")
    bomb: _Share = Field(0.0, description="200 with a small JPEG whose header claims 30,000 x 30,000 pixels")
    read_timeout: _Share = Field(0.0, description="No response until the client disconnects")
    connect_timeout: _Share = Field(0.0, description="307 to an address that accepts no connection")
    connection_reset: _Share = Field(0.0, description="Connection reset instead of a response")
    trailing_bytes: _Share = Field(0.0, description="200 with the JPEG and further bytes after its end")
    stuck_cache: _Share = Field(0.0, description="200 with the image of the previous object")
    client_error: _Share = Field(0.0, description="400 with JSON; permanent")
    redirect_loop: _Share = Field(0.0, description="302 to the same address")
    lasting: _Share = Field(0.0, description="Share of the temporary faults that are permanent for their object")
    retry_after_s: _Count = Field(1, description="Value of Retry-After, seconds")


class EmulatorSection(Section):
    """Contents of the loopback emulator: a simulated sky, or a folder of cutouts with a catalog."""

    n_galaxies: _Count = Field(0, description="Simulated galaxies with spectra, in the catalog")
    n_new: _Count = Field(0, description="Simulated galaxies without spectra, to be scored")
    seed: int = 0
    new_catalog: Path | None = Field(None, description="CSV of the new galaxies, written when the emulator starts")
    catalog: Path | None = Field(None, description="CSV of a folder of real cutouts")
    cutouts: Path | None = Field(None, description="Folder of JPEGs named by object id")
    faults: FaultSection = FaultSection()

    @model_validator(mode="after")
    def _require_one_sky(self) -> EmulatorSection:
        if (self.catalog is None) != (self.cutouts is None):
            raise ValueError("catalog and cutouts belong together: give both or neither")
        if (self.n_galaxies > 0) == (self.catalog is not None):
            raise ValueError("give either n_galaxies > 0 (simulated sky) or catalog and cutouts (folder)")
        return self


class CutoutSection(Section):
    """Pixel scale of the cutouts."""

    scale_rule: ScaleRule = ScaleRule.FIXED
    scale_arcsec: float = Field(0.296, description="arcsec per pixel of scale_rule = 'fixed'")
    prepared: bool = Field(False, description="The service holds images that were already cut by the rule")

    @property
    def scale(self) -> CutoutScale:
        return CutoutScale(rule=self.scale_rule, arcsec_per_px=self.scale_arcsec, prepared=self.prepared)


class DaskSection(Section):
    """Dask cluster that ingests the blocks."""

    scheduler: str = Field("", description="Address of a running scheduler; empty = start a local cluster")
    workers: _Count = Field(0, description="Worker processes; 0 = one per core")
    blocks_per_commit: _CountFromOne = Field(16, description="Blocks of 1,024 objects in one commit")


class SplitSection(Section):
    """Shares of the labelled galaxies, assigned by a stable hash of the object id or of the cell of the sky."""

    train: Annotated[float, Field(gt=0, le=1)] = 0.6
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    test: Annotated[float, Field(ge=0, lt=1)] = 0.2
    seed: int = 0
    by: Literal["object", "sky"] = Field("object", description="Hashed key: the object id, or its HEALPix cell")
    duplicate_arcsec: Annotated[float, Field(gt=0, le=60)] = Field(2.0, description="Closer objects are one galaxy")
    cell_order: Annotated[int, Field(ge=0, le=12)] = Field(5, description="HEALPix order of a cell; 5 is 1.8 deg")
    # split by sky: training objects closer than this to cells of other splits are dropped
    separation_deg: Annotated[float, Field(gt=0, le=10)] = 0.1

    @model_validator(mode="after")
    def _require_sum_of_one(self) -> SplitSection:
        if abs(self.train + self.validation + self.test - 1) > 1e-9:
            raise ValueError(f"train + validation + test = {self.train + self.validation + self.test:g}, must be 1")
        return self


class NetworkSection(Section):
    """Architecture of the network and the pyramid level of its input."""

    arch: Literal["resnet18", "resnet34", "resnet50", "resnet10w32"] = "resnet34"
    level: int = Field(128, description="Side of the input images in pixels")
    weights: str = Field("none", description="'none', 'imagenet' (torchvision's cached file) or a path")
    dropout: tuple[float, float] = Field((0.25, 0.5), description="Dropout before each linear layer of the head")

    @model_validator(mode="after")
    def _require_known_level(self) -> NetworkSection:
        if self.level not in LEVELS:
            raise ValueError(f"level {self.level} is not in the cube: choose one of {', '.join(map(str, LEVELS))}")
        return self


Residence = Literal["auto", "resident", "streamed"]
"""Location of the training pixels: in memory, or read from the cube during training."""


class TrainSection(Section):
    """Training of the network."""

    target: str = "oh_p50"
    further_targets: tuple[str, ...] = Field((), description="Further labels to learn; objects may lack some of them")
    epochs: _CountFromOne = 10
    batch_size: Annotated[int, Field(ge=2)] = 128
    # one_cycle: AdamW with averaged weights. wu_boada_2019: SGD, body frozen for 2 epochs, then cosine restarts after
    # 1, 1, 2, 4 ... epochs at 0.01, 0.1 and 1 times the learning rate of the head
    method: Literal["one_cycle", "wu_boada_2019"] = "one_cycle"
    loss: Literal["rmse", "gaussian"] = Field("rmse", description="gaussian: likelihood with a predicted sigma")
    learning_rate: _Positive = Field(0.01, description="Maximum learning rate of the head")
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    patience: _Count = Field(0, description="Stop after this number of epochs without improvement; 0 = never")
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    pixels: Residence = Field("auto", description="auto = resident if the pixels fit into half of the free memory")
    save_every_s: Annotated[float, Field(ge=0)] = Field(60.0, description="Seconds between checkpoints")

    @model_validator(mode="after")
    def _require_distinct_targets(self) -> TrainSection:
        if len(set(self.targets)) < len(self.targets):
            raise ValueError(f"targets {', '.join(self.targets)}: name each label once")
        return self

    @property
    def targets(self) -> tuple[str, ...]:
        """Labels to learn; the first one is scored."""
        return (self.target, *self.further_targets)

    def identity(self) -> dict[str, object]:
        """Return the values that determine the weights: all except device, residence and checkpoint interval."""
        return self.model_dump(mode="json", exclude={"device", "pixels", "save_every_s"})


class ScoreSection(Section):
    """Catalog to score, and the models to score it with."""

    catalog: Path | None = None
    # id or promoted name in the output folder; several, as a list or separated by commas, form an ensemble
    model: str = Field("", description="Models; empty = the model of this recipe")
    views: Literal[1, 8] = Field(8, description="Rotations and reflections of each image to average over")
    batch_size: _CountFromOne = 256
    workers: _Count = Field(0, description="Dask workers, each with one network (and GPU); 0 = this process")

    @field_validator("model", mode="before")
    @classmethod
    def _join_models(cls, value: object) -> object:
        return ",".join(map(str, value)) if isinstance(value, list | tuple) else value

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.model.split(",") if name.strip())


class Recipe(Section):
    """Description of one complete run."""

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
        return replace(self.cutouts.scale, composite=self.survey.composite)

    @property
    def sky_is_simulated(self) -> bool:
        """True if the survey is a simulated sky, whose numbers do not describe real galaxies."""
        return self.survey.base_url == EMULATOR and self.emulator is not None and self.emulator.n_galaxies > 0

    @model_validator(mode="after")
    def _require_emulator_section(self) -> Recipe:
        if self.survey.base_url == EMULATOR and self.emulator is None:
            raise ValueError("survey.base_url = 'emulator' needs a section [emulator]")
        return self

    def with_values(self, values: Mapping[str, object]) -> Recipe:
        """Return a recipe with some values replaced.

        Parameters
        ----------
        values
            Values by dotted key. A whole section is a mapping, a `Section` or None.

        Raises
        ------
        RecipeError
            A key is unknown, or a value has the wrong type or range; the message names the key.

        Examples
        --------
        >>> survey = {"name": "sdss", "base_url": "https://example.org"}
        >>> recipe = Recipe(name="mine", store={"path": "cube"}, output={"folder": "out"}, survey=survey)
        >>> recipe.with_values({"survey.limit": 5}).survey.limit
        5
        >>> recipe.with_values({"survey.limits": 5})
        Traceback (most recent call last):
        ...
        schemas.errors.RecipeError: recipe mine: unknown key 'survey.limits' (did you mean 'limit'?)
        """
        tree = self.model_dump(exclude_unset=True)
        for key, value in values.items():
            _set_value(tree, key, value)
        return _validate(tree, origin=f"recipe {self.name}")


def parse_recipe(text: str, *, origin: str, overrides: Sequence[str] = ()) -> Recipe:
    """Parse a recipe in TOML and apply overrides.

    Parameters
    ----------
    origin
        Path or name of the recipe, for error messages.
    overrides
        `section.key=value`. The value is TOML (`3`, `true`, `[1, 2]`); other text is taken as a string.

    Raises
    ------
    RecipeError
        The text is not TOML, a key is unknown, or a value has the wrong type or range; the message names the key.
    """
    try:
        tree: dict[str, object] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{origin} is not TOML: {error}") from error
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not all(key.strip().split(".")):
            raise RecipeError(f"override {override!r} is not of the form section.key=value, as in survey.limit=500")
        _set_value(tree, key.strip(), _parse_toml_value(value))
    return _validate(tree, origin=origin)


def _parse_toml_value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _set_value(tree: dict[str, object], key: str, value: object) -> None:
    *sections, last = key.split(".")
    for name in sections:
        section = {} if tree.get(name) is None else tree[name]
        if isinstance(section, Section):
            section = section.model_dump(exclude_unset=True)
        if not isinstance(section, dict):
            raise RecipeError(f"cannot set '{key}': '{name}' is a value, not a section")
        tree[name] = section
        tree = section
    tree[last] = value


def _validate(tree: dict[str, object], *, origin: str) -> Recipe:
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(f"{origin}: {'; '.join(_describe_problem(problem) for problem in error.errors())}") from error


def _describe_problem(problem: ErrorDetails) -> str:
    key = ".".join(str(part) for part in problem["loc"]) or "recipe"
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}'{_suggest_key(problem['loc'])}"
    return f"{key}: {problem['msg'].removeprefix('Value error, ')}"


def _suggest_key(location: tuple[str | int, ...]) -> str:
    section: type[BaseModel] = Recipe
    for name in location[:-1]:
        annotation = section.model_fields[str(name)].annotation
        section = next(a for a in (annotation, *getattr(annotation, "__args__", ())) if hasattr(a, "model_fields"))
    known = list(section.model_fields)
    close = get_close_matches(str(location[-1]), known, n=1)
    return f" (did you mean '{close[0]}'?)" if close else f" (known: {', '.join(known)})"
