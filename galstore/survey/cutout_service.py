"""Cutout services: what a service must say of itself to be asked for cutouts, and which ones a recipe means."""

from __future__ import annotations

from typing import Protocol

from galstore.survey.legacysurvey import LegacySurveyViewer
from galstore.survey.skyserver import SkyServer
from schemas.recipes import EMULATOR, SurveySection


class CutoutService(Protocol):
    """A service that answers a GET request for a place on the sky with a JPEG of 128 x 128 px.

    It is sent to worker processes, so that it must be picklable. What is right or wrong about an answer is judged in
    one place for all services: `galstore.survey.responses`.
    """

    @property
    def base_url(self) -> str:
        """Root of the service; rate and memory of images are kept by it."""

    @property
    def cutout_url(self) -> str:
        """Where cutouts are asked for, without parameters."""

    def cutout_params(self, *, ra_deg: float, dec_deg: float, scale_arcsec: float) -> dict[str, str]:
        """Query parameters of one cutout (ICRS, arcsec per pixel); a scale of NaN is left to the service."""


def catalog_service_of(survey: SurveySection, base_url: str) -> SkyServer:
    """Who is asked for a recipe's catalog.

    Parameters
    ----------
    survey
        Section of the recipe.
    base_url
        Where the survey is: `survey.base_url`, or a emulator's address on loopback.
    """
    return SkyServer(base_url=base_url.rstrip("/"), data_release=survey.data_release)


def cutout_service_of(survey: SurveySection, base_url: str) -> CutoutService:
    """Who is asked for a recipe's cutouts; parameters as of `catalog_service_of`.

    Examples
    --------
    >>> survey = SurveySection(name="demo", base_url="emulator", cutout_service="legacysurvey")
    >>> cutout_service_of(survey, "http://127.0.0.1:8080").cutout_url
    'http://127.0.0.1:8080/viewer/cutout.jpg'
    """
    # the emulator plays every service at one address
    played = survey.base_url == EMULATOR
    address = (base_url if played or not survey.cutout_base_url else survey.cutout_base_url).rstrip("/")
    if survey.cutout_service == "legacysurvey":
        return LegacySurveyViewer(base_url=address, layer=survey.layer)
    return SkyServer(base_url=address, data_release=survey.data_release)
