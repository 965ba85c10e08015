"""The probe of one survey: its catalog, then its cutouts; ten requests at most."""

from __future__ import annotations

import pandas as pd

from galstore.event_loop import run
from galstore.survey.catalog_files.reader import read_catalog_head
from galstore.survey.cutout_service import catalog_service_of, cutout_service_of
from galstore.survey.probe.catalog import probe_catalog
from galstore.survey.probe.checks import Check, Verdict
from galstore.survey.probe.cutouts import Place, probe_cutouts
from galstore.survey.retry import Politeness
from galstore.survey.row_checks import prepare_catalog
from schemas.cutouts import CutoutScale
from schemas.recipes import Recipe, SurveySection

WELL_KNOWN = ((179.689293, -0.454379), (185.728750, 15.822300))
"""Galaxies that SDSS and the Legacy Surveys cover (ICRS, degrees), where the catalog gives none: the one that
SkyServer's own pages show first, and M100."""


def probe_survey(recipe: Recipe, base_url: str) -> tuple[Check, ...]:
    """Whether the services of a recipe's survey still answer as this client expects.

    Parameters
    ----------
    recipe
        Its sections `survey` and `cutouts`.
    base_url
        Where the survey is: `survey.base_url`, or a emulator's address on loopback.

    Returns
    -------
    tuple of Check
        In the order in which the services were asked. A service's fault is a check that failed, never an exception.

    Raises
    ------
    CatalogError
        The recipe names a catalog file, and it cannot be read.
    """
    survey = recipe.survey
    if survey.catalog is not None:
        checks: tuple[Check, ...] = ()
        objects = prepare_catalog(read_catalog_head(survey.catalog), origin=str(survey.catalog)).rows
    else:
        probed = probe_catalog(catalog_service_of(survey, base_url), survey, timeout_s=survey.read_timeout_s)
        checks, objects = probed.checks, probed.objects
    service = cutout_service_of(survey, base_url)
    places = _two_places(objects, recipe.cutout_scale)
    cutouts = probe_cutouts(service, places, _politeness_of(survey), prepared=recipe.cutouts.prepared)
    return (*checks, *run(cutouts))


def agree(checks: tuple[Check, ...]) -> bool:
    """Whether nothing differs or failed."""
    return all(check.verdict in (Verdict.OK, Verdict.SKIPPED) for check in checks)


def _two_places(objects: pd.DataFrame, scale: CutoutScale) -> tuple[Place, Place]:
    """The brightest objects, since noise hides the others' shapes; well-known ones where there are not two."""
    if len(objects) < 2:
        # 5 arcsec: the size of an ordinary galaxy of the sample
        one, other = (Place(ra_deg=ra, dec_deg=dec, scale_arcsec=scale.of(5.0)) for ra, dec in WELL_KNOWN)
        return one, other
    if "petroMag_r" in objects:
        objects = objects.sort_values("petroMag_r")
    sizes = objects["petroR90_r"] if "petroR90_r" in objects else pd.Series(5.0, index=objects.index)
    one, other = (
        Place(
            ra_deg=float(objects["ra"].iloc[number]), dec_deg=float(objects["dec"].iloc[number]),
            scale_arcsec=scale.of(float(sizes.iloc[number])),
        )
        for number in range(2)
    )  # fmt: skip
    return one, other


def _politeness_of(survey: SurveySection) -> Politeness:
    return Politeness(
        requests_per_second=survey.requests_per_second,
        concurrency=1,
        connect_timeout_s=survey.connect_timeout_s,
        read_timeout_s=survey.read_timeout_s,
        attempts=1,
        retry_budget_s=survey.retry_budget_s,
        breaker_failures=survey.breaker_failures,
    )
