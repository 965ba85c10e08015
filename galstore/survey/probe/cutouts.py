"""The cutouts' side of a probe: five or six images."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass

import aiohttp
import numpy as np
import numpy.typing as npt

from galstore.survey.client import open_session
from galstore.survey.cutout_service import CutoutService
from galstore.survey.legacysurvey import LegacySurveyViewer
from galstore.survey.probe.checks import DIFFERENCES, MEANINGS, Check, Verdict, tell_answer
from galstore.survey.rate_limit import LocalPacer
from galstore.survey.responses import Answer, CutoutRequest, PassingError, judge_answer, receive_answer
from galstore.survey.retry import Politeness
from schemas.cutouts import SIDE_PX, Reason

UNCOVERED = (266.4168, -29.0078)
"""The Galactic centre (ICRS, degrees): no survey of galaxies covers it."""

LEAST_LIKENESS = 0.5
"""Correlation of one galaxy at two scales, once they are brought to one. Measured on the simulated sky: 0.8-0.99."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an object is (degrees), and at which scale it is asked for (arcsec per pixel)."""

    ra_deg: float
    dec_deg: float
    scale_arcsec: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Exchange:
    answer: Answer
    reason: Reason
    pixels: npt.NDArray[np.uint8] | None
    seconds: float

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.answer.body).digest()


async def probe_cutouts(
    service: CutoutService, places: tuple[Place, Place], politeness: Politeness, *, prepared: bool
) -> tuple[Check, ...]:
    """Ask for two objects, one of them at two scales, for a place without coverage, and for what must be refused.

    Parameters
    ----------
    service
        Who is asked.
    places
        Two objects that it covers.
    politeness
        Rate and time limits; nothing is asked twice.
    prepared
        The service holds images that are cut already: it takes no scale.
    """
    async with open_session(politeness) as http:
        prober = _Prober(http, service, LocalPacer(politeness.requests_per_second))
        return await prober.check_all(places, prepared=prepared, read_timeout_s=politeness.read_timeout_s)


class _Prober:
    def __init__(self, http: aiohttp.ClientSession, service: CutoutService, pacer: LocalPacer) -> None:
        self._http, self._service, self._pacer = http, service, pacer

    async def check_all(
        self, places: tuple[Place, Place], *, prepared: bool, read_timeout_s: float
    ) -> tuple[Check, ...]:
        first = await self._ask(self._params(places[0]))
        other = await self._ask(self._params(places[1]))
        checks = [_check_image("cutout", first), _check_other(first, other)]
        if first.pixels is None:
            checks.append(_skip_scale("there is no first cutout to compare with"))
        elif prepared:
            checks.append(_skip_scale("the service holds images that are cut already"))
        else:
            place = places[0]
            scale_arcsec = 2 * place.scale_arcsec
            wider = await self._ask(
                self._params(Place(ra_deg=place.ra_deg, dec_deg=place.dec_deg, scale_arcsec=scale_arcsec))
            )
            checks.append(_check_scale(first.pixels, wider))
        checks += await self._check_refusals(places[0])
        checks += [_check_headers(first), _check_latency([first, other], read_timeout_s)]
        return tuple(checks)

    async def _check_refusals(self, place: Place) -> list[Check]:
        """What must not be answered with an image."""
        viewer = isinstance(self._service, LegacySurveyViewer)
        nowhere = Place(ra_deg=UNCOVERED[0], dec_deg=UNCOVERED[1], scale_arcsec=place.scale_arcsec)
        outside = await self._ask(self._params(nowhere))
        expected = (
            (Reason.FLAT, "200 with a tile of one colour")
            if viewer
            else (Reason.OUT_OF_FOOTPRINT, "404, or a black tile")
        )
        checks = [_check_reason("outside the footprint", outside, *expected)]
        params = self._params(place)
        without_dec = await self._ask({name: value for name, value in params.items() if name != "dec"})
        checks.append(_check_reason("request without dec", without_dec, Reason.CLIENT_ERROR, "400"))
        if viewer:
            unknown = await self._ask({**params, "layer": "galstore-probe"})
            checks.append(_check_reason("unknown layer", unknown, Reason.ERROR_MESSAGE, "200 with a text"))
        return checks

    def _params(self, place: Place) -> dict[str, str]:
        return self._service.cutout_params(ra_deg=place.ra_deg, dec_deg=place.dec_deg, scale_arcsec=place.scale_arcsec)

    async def _ask(self, params: dict[str, str]) -> _Exchange:
        await self._pacer.turn()
        request = CutoutRequest(row=0, url=self._service.cutout_url, params=params)
        started_s = time.monotonic()
        answer = await receive_answer(self._http, request)
        seconds = time.monotonic() - started_s
        try:
            delivery = judge_answer(request, answer)
        except PassingError as failure:
            delivery = failure.delivery
        return _Exchange(answer=answer, reason=delivery.reason, pixels=delivery.pixels, seconds=seconds)


def _check_image(name: str, got: _Exchange) -> Check:
    verdict, advice = Verdict.OK, ""
    if got.reason is not Reason.NONE:
        verdict = Verdict.DIFFERS if got.reason in DIFFERENCES else Verdict.FAILED
        advice = MEANINGS[got.reason][1]
    return Check(
        name=name, verdict=verdict, expected=f"200 with a whole JPEG of {SIDE_PX} x {SIDE_PX} px",
        got=tell_answer(got.answer, got.reason), advice=advice, seconds=got.seconds,
    )  # fmt: skip


def _check_other(first: _Exchange, other: _Exchange) -> Check:
    """A second object's cutout is an image of its own."""
    check = _check_image("another object's cutout", other)
    repeated = first.reason is other.reason is Reason.NONE and first.digest == other.digest
    if not repeated:
        return check
    meaning, advice = MEANINGS[Reason.REPEATED_BODY]
    return Check(
        name=check.name, verdict=Verdict.FAILED, expected=f"{check.expected}, and not the first object's",
        got=f"repeated_body: {meaning}", advice=advice, seconds=other.seconds,
    )  # fmt: skip


def _check_reason(name: str, got: _Exchange, reason: Reason, form: str) -> Check:
    same = got.reason is reason
    advice = ""
    if not same:
        known = MEANINGS[got.reason][1] if got.reason is not Reason.NONE else ""
        advice = known if got.reason not in DIFFERENCES | {Reason.NONE} else (
            "images of nothing would be stored: report it, do not ingest" if got.reason is Reason.NONE
            else "known as no image, but it would be quarantined for another reason: report it"
        )  # fmt: skip
    passing = got.reason not in DIFFERENCES and got.reason is not Reason.NONE
    return Check(
        name=name, verdict=Verdict.OK if same else Verdict.FAILED if passing else Verdict.DIFFERS,
        expected=f"{form} ({reason.name.lower()})", got=tell_answer(got.answer, got.reason), advice=advice,
        seconds=got.seconds,
    )  # fmt: skip


def _check_scale(pixels: npt.NDArray[np.uint8], wider: _Exchange) -> Check:
    """At twice the scale the same sky fills half the width."""
    expected = "at twice the scale, the same galaxy at half the size"
    if wider.pixels is None:
        return _check_image("scale", wider)
    scaled, ignored = _likeness(pixels, wider.pixels)
    agrees = scaled >= LEAST_LIKENESS and scaled > ignored
    return Check(
        name="scale", verdict=Verdict.OK if agrees else Verdict.DIFFERS, expected=expected,
        got=f"correlation {scaled:.2f} with that, {ignored:.2f} with the first image unchanged",
        advice="" if agrees else "the service ignores or changes the scale that is asked for: report it, do not ingest",
        seconds=wider.seconds,
    )  # fmt: skip


def _likeness(pixels: npt.NDArray[np.uint8], wider: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """Correlation of an image with the one at twice its scale, brought to one scale; and as they are."""
    fine, coarse = (image.astype(np.float64).mean(axis=-1) for image in (pixels, wider))
    half = SIDE_PX // 2
    binned = fine.reshape(half, 2, half, 2).mean(axis=(1, 3))
    middle = slice(half // 2, half // 2 + half)
    scaled = np.corrcoef(binned.ravel(), coarse[middle, middle].ravel())[0, 1]
    return float(scaled), float(np.corrcoef(fine.ravel(), coarse.ravel())[0, 1])


def _skip_scale(why: str) -> Check:
    expected = "at twice the scale, the same galaxy at half the size"
    return Check(name="scale", verdict=Verdict.SKIPPED, expected=expected, got=why)


def _check_headers(first: _Exchange) -> Check:
    """What is announced about an image, and how it was reached."""
    name, expected = "headers of the cutout", "Content-Type image/jpeg, not packed, no redirects"
    if first.reason is not Reason.NONE:
        return Check(name=name, verdict=Verdict.SKIPPED, expected=expected, got="there is no cutout")
    headers = first.answer.headers
    kind, packed = headers.get("Content-Type", "none"), headers.get("Content-Encoding", "identity")
    agrees = kind.startswith("image/jpeg") and packed == "identity" and not first.answer.n_redirects
    return Check(
        name=name, verdict=Verdict.OK if agrees else Verdict.DIFFERS, expected=expected,
        got=f"Content-Type {kind}, Content-Encoding {packed}, {first.answer.n_redirects} redirects",
        advice="" if agrees else "images arrive all the same; if there are redirects, give the new address as base URL",
    )  # fmt: skip


def _check_latency(exchanges: list[_Exchange], read_timeout_s: float) -> Check:
    """Whether the time limit leaves room."""
    name, expected = "latency", f"an image within half of read_timeout_s = {read_timeout_s:g} s"
    seconds = [one.seconds for one in exchanges if one.reason is Reason.NONE]
    if not seconds:
        return Check(name=name, verdict=Verdict.SKIPPED, expected=expected, got="there is no cutout")
    slowest_s = max(seconds)
    agrees = slowest_s < read_timeout_s / 2
    return Check(
        name=name, verdict=Verdict.OK if agrees else Verdict.DIFFERS, expected=expected,
        got=f"{slowest_s:.2f} s", advice="" if agrees else "raise survey.read_timeout_s, or ask at another time",
    )  # fmt: skip
