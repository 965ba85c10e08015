"""Probe of one survey: its catalog, then its cutouts, with at most ten requests."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from galstore.event_loop import run
from galstore.survey.catalog_files.reader import read_catalog_head
from galstore.survey.cutout_service import catalog_service_of, cutout_service_of, request_limits_of
from galstore.survey.probe.catalog import probe_catalog
from galstore.survey.probe.checks import Check, Verdict
from galstore.survey.probe.cutouts import Place, probe_cutouts
from galstore.survey.row_checks import prepare_catalog
from schemas.cutouts import CutoutScale
from schemas.recipes import Recipe

DEFAULT_POSITIONS = ((179.689293, -0.454379), (185.728750, 15.822300))
"""Galaxies covered by SDSS and the Legacy Surveys (ICRS, degrees), used if the catalog has too few: the first example
on SkyServer's pages, and M100."""

DEFAULT_R90_ARCSEC = 5.0
"""Typical size of a galaxy in the sample."""


def probe_survey(recipe: Recipe, base_url: str) -> tuple[Check, ...]:
    """Check that the services of a recipe's survey respond as this client expects.

    `base_url` is `survey.base_url` or an emulator on loopback. Results are in the order of the requests. A fault of the
    service is a failed check, never an exception; a catalog file that cannot be read raises `CatalogError`.
    """
    survey = recipe.survey
    if survey.catalog is not None:
        checks: tuple[Check, ...] = ()
        objects = prepare_catalog(read_catalog_head(survey.catalog), origin=str(survey.catalog)).rows
    else:
        probed = probe_catalog(catalog_service_of(survey, base_url), survey, timeout_s=survey.read_timeout_s)
        checks, objects = probed.checks, probed.objects
    service = cutout_service_of(survey, base_url)
    places = _choose_places(objects, recipe.cutout_scale)
    request_limits = replace(request_limits_of(survey), concurrency=1, attempts=1)
    cutouts = probe_cutouts(service, places, request_limits, prepared=recipe.cutouts.prepared)
    return (*checks, *run(cutouts))


def agree(checks: tuple[Check, ...]) -> bool:
    """Return True if no check differs or failed."""
    return all(check.verdict in (Verdict.OK, Verdict.SKIPPED) for check in checks)


def _choose_places(objects: pd.DataFrame, scale: CutoutScale) -> tuple[Place, Place]:
    """Return the two brightest objects, because noise hides the shapes of faint ones; or the default positions."""
    if len(objects) < 2:
        objects = pd.DataFrame(DEFAULT_POSITIONS, columns=["ra", "dec"])
    if "petroMag_r" in objects:
        objects = objects.sort_values("petroMag_r")
    if "petroR90_r" not in objects:
        objects = objects.assign(petroR90_r=DEFAULT_R90_ARCSEC)
    first, second = (
        Place(ra_deg=float(ra), dec_deg=float(dec), scale_arcsec=scale.of(float(r90)))
        for ra, dec, r90 in objects[["ra", "dec", "petroR90_r"]].head(2).itertuples(index=False)
    )
    return first, second
