"""Cutout services: their interface, the Legacy Surveys viewer, and the service and limits that a recipe selects."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from galstore.survey.retry import RequestLimits
from galstore.survey.skyserver import SkyServer
from schemas.cutouts import SIDE_PX
from schemas.recipes import EMULATOR, SurveySection


class CutoutService(Protocol):
    """Service that answers a GET request for a position with a JPEG of 128 x 128 px.

    Implementations must be picklable, because they are sent to worker processes. Responses of all services are
    classified in one place, `galstore.survey.responses`.
    """

    @property
    def base_url(self) -> str:
        """Root of the service; rate limit and repeat detection are separate for each."""

    @property
    def cutout_url(self) -> str:
        """Address of the cutouts, without parameters."""

    def cutout_params(self, *, ra_deg: float, dec_deg: float, scale_arcsec: float) -> dict[str, str]:
        """Return the query parameters of one cutout (ICRS, arcsec per pixel), without the scale if it is NaN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacySurveyViewer:
    """Layer of a Legacy Surveys viewer, real or emulated; only the base URL differs.

    Source: the viewer's cutout page (legacysurvey.org/viewer). Without a scale it uses its native pixels, 0.262 arcsec.
    """

    base_url: str
    layer: str = "ls-dr9"

    @property
    def cutout_url(self) -> str:
        return f"{self.base_url}/viewer/cutout.jpg"

    def cutout_params(self, *, ra_deg: float, dec_deg: float, scale_arcsec: float) -> dict[str, str]:
        params = {"ra": f"{ra_deg:.9f}", "dec": f"{dec_deg:.9f}", "size": str(SIDE_PX), "layer": self.layer}
        if not math.isnan(scale_arcsec):
            params["pixscale"] = f"{scale_arcsec:.9g}"
        return params


def catalog_service_of(survey: SurveySection, base_url: str) -> SkyServer:
    """Return the catalog service of a recipe at its `survey.base_url`, or at an emulator on loopback."""
    return SkyServer(base_url=base_url.rstrip("/"), data_release=survey.data_release)


def cutout_service_of(survey: SurveySection, base_url: str) -> CutoutService:
    """Return the cutout service of a recipe, with the parameters of `catalog_service_of`.

    Examples
    --------
    >>> survey = SurveySection(name="demo", base_url="emulator", cutout_service="legacysurvey")
    >>> cutout_service_of(survey, "http://127.0.0.1:8080").cutout_url
    'http://127.0.0.1:8080/viewer/cutout.jpg'
    """
    # the emulator serves catalog and cutouts at one address
    is_emulated = survey.base_url == EMULATOR
    address = (base_url if is_emulated or not survey.cutout_base_url else survey.cutout_base_url).rstrip("/")
    if survey.cutout_service == "legacysurvey":
        return LegacySurveyViewer(base_url=address, layer=survey.layer)
    return SkyServer(base_url=address, data_release=survey.data_release)


def request_limits_of(survey: SurveySection, *, n_workers: int = 1) -> RequestLimits:
    """Return the request limits of a recipe, with an equal share of the connections for each worker."""
    return RequestLimits(
        requests_per_second=survey.requests_per_second,
        concurrency=max(1, survey.concurrency // n_workers),
        connect_timeout_s=survey.connect_timeout_s,
        read_timeout_s=survey.read_timeout_s,
        attempts=survey.attempts,
        retry_budget_s=survey.retry_budget_s,
        breaker_failures=survey.breaker_failures,
    )
