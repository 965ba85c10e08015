"""Probe of a cutout service, with five or six images."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace

import aiohttp
import numpy as np
import numpy.typing as npt

from galstore.survey.client import open_session, send_request
from galstore.survey.cutout_service import CutoutService, LegacySurveyViewer
from galstore.survey.probe.checks import DIFFERENCES, MEANINGS, Check, Verdict, describe_response
from galstore.survey.rate_limit import RateLimiter
from galstore.survey.responses import CutoutRequest, HttpResponse, TransientError, classify_response
from galstore.survey.retry import RequestLimits
from schemas.cutouts import SIDE_PX, Reason

UNCOVERED = (266.4168, -29.0078)
"""The Galactic centre (ICRS, degrees), which no galaxy survey covers."""

MIN_CORRELATION = 0.5
"""Correlation of one galaxy at two scales, after rebinning. Measured on the simulated sky: 0.8-0.99."""

_SCALE_EXPECTED = "at twice the scale, the same galaxy at half the size"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Position (degrees) and scale (arcsec per pixel) of a cutout."""

    ra_deg: float
    dec_deg: float
    scale_arcsec: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Exchange:
    received: HttpResponse
    reason: Reason
    pixels: npt.NDArray[np.uint8] | None
    seconds: float

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.received.body).digest()

    def to_check(self, name: str, verdict: Verdict, expected: str, *, got: str = "", advice: str = "") -> Check:
        got = got or describe_response(self.received, self.reason)
        return Check(name=name, verdict=verdict, expected=expected, got=got, advice=advice, seconds=self.seconds)


async def probe_cutouts(
    service: CutoutService, places: tuple[Place, Place], request_limits: RequestLimits, *, prepared: bool
) -> tuple[Check, ...]:
    """Request two covered objects, one of them at two scales, a position without coverage, and invalid parameters.

    Nothing is retried. A `prepared` service holds images that were cut before, and ignores the scale.
    """
    async with open_session(request_limits) as session:
        prober = _Prober(session, service, RateLimiter(request_limits.requests_per_second))
        return await prober.check_all(places, prepared=prepared, read_timeout_s=request_limits.read_timeout_s)


class _Prober:
    def __init__(self, session: aiohttp.ClientSession, service: CutoutService, rate_limiter: RateLimiter) -> None:
        self._session, self._service, self._rate_limiter = session, service, rate_limiter

    async def check_all(
        self, places: tuple[Place, Place], *, prepared: bool, read_timeout_s: float
    ) -> tuple[Check, ...]:
        first = await self._fetch(self._params(places[0]))
        other = await self._fetch(self._params(places[1]))
        checks = [_check_cutout("cutout", first), _check_other(first, other)]
        if first.pixels is None:
            checks.append(Check.skipped("scale", _SCALE_EXPECTED, "no first cutout to compare with"))
        elif prepared:
            checks.append(Check.skipped("scale", _SCALE_EXPECTED, "the service holds images that were cut before"))
        else:
            wider_place = replace(places[0], scale_arcsec=2 * places[0].scale_arcsec)
            checks.append(_check_scale(first.pixels, await self._fetch(self._params(wider_place))))
        checks += await self._check_rejections(places[0])
        checks += [_check_headers(first), _check_latency([first, other], read_timeout_s)]
        return tuple(checks)

    async def _check_rejections(self, place: Place) -> list[Check]:
        """Check the requests that the service must not answer with an image."""
        is_viewer = isinstance(self._service, LegacySurveyViewer)
        uncovered = Place(ra_deg=UNCOVERED[0], dec_deg=UNCOVERED[1], scale_arcsec=place.scale_arcsec)
        outside = await self._fetch(self._params(uncovered))
        reason, form = Reason.OUT_OF_FOOTPRINT, "404, or a black tile"
        if is_viewer:
            reason, form = Reason.FLAT, "200 with a tile of one colour"
        checks = [_check_reason("outside the footprint", outside, reason, form)]
        params = self._params(place)
        without_dec = await self._fetch({name: value for name, value in params.items() if name != "dec"})
        checks.append(_check_reason("request without dec", without_dec, Reason.CLIENT_ERROR, "400"))
        if is_viewer:
            unknown = await self._fetch({**params, "layer": "galstore-probe"})
            checks.append(_check_reason("unknown layer", unknown, Reason.ERROR_MESSAGE, "200 with a text"))
        return checks

    def _params(self, place: Place) -> dict[str, str]:
        return self._service.cutout_params(ra_deg=place.ra_deg, dec_deg=place.dec_deg, scale_arcsec=place.scale_arcsec)

    async def _fetch(self, params: dict[str, str]) -> _Exchange:
        await self._rate_limiter.acquire()
        request = CutoutRequest(row=0, url=self._service.cutout_url, params=params)
        started_s = time.monotonic()
        received = await send_request(self._session, request)
        seconds = time.monotonic() - started_s
        try:
            response = classify_response(request, received)
        except TransientError as error:
            response = error.response
        return _Exchange(received=received, reason=response.reason, pixels=response.pixels, seconds=seconds)


def _check_cutout(name: str, got: _Exchange) -> Check:
    verdict, advice = Verdict.OK, ""
    if got.reason is not Reason.NONE:
        verdict = Verdict.DIFFERS if got.reason in DIFFERENCES else Verdict.FAILED
        advice = MEANINGS[got.reason][1]
    return got.to_check(name, verdict, f"200 with a complete JPEG of {SIDE_PX} x {SIDE_PX} px", advice=advice)


def _check_other(first: _Exchange, other: _Exchange) -> Check:
    """Check that the image of a second object differs from the first one's."""
    check = _check_cutout("another object's cutout", other)
    if first.reason is other.reason is Reason.NONE and first.digest == other.digest:
        meaning, advice = MEANINGS[Reason.REPEATED_BODY]
        expected = f"{check.expected}, and not the first object's"
        return other.to_check(check.name, Verdict.FAILED, expected, got=f"repeated_body: {meaning}", advice=advice)
    return check


def _check_reason(name: str, got: _Exchange, reason: Reason, form: str) -> Check:
    expected = f"{form} ({reason.name.lower()})"
    if got.reason is reason:
        return got.to_check(name, Verdict.OK, expected)
    if got.reason is Reason.NONE:
        advice = "images without content would be stored: report it, do not ingest"
        return got.to_check(name, Verdict.DIFFERS, expected, advice=advice)
    if got.reason in DIFFERENCES:
        advice = "the client rejects the response, but would quarantine the object for another reason: report it"
        return got.to_check(name, Verdict.DIFFERS, expected, advice=advice)
    return got.to_check(name, Verdict.FAILED, expected, advice=MEANINGS[got.reason][1])


def _check_scale(pixels: npt.NDArray[np.uint8], wider: _Exchange) -> Check:
    """Check that the same sky fills half the width at twice the scale."""
    if wider.pixels is None:
        return _check_cutout("scale", wider)
    rebinned, unchanged = _correlations(pixels, wider.pixels)
    got = f"correlation {rebinned:.2f} with that, {unchanged:.2f} with the first image unchanged"
    if rebinned >= MIN_CORRELATION and rebinned > unchanged:
        return wider.to_check("scale", Verdict.OK, _SCALE_EXPECTED, got=got)
    advice = "the service ignores or changes the requested scale: report it, do not ingest"
    return wider.to_check("scale", Verdict.DIFFERS, _SCALE_EXPECTED, got=got, advice=advice)


def _correlations(pixels: npt.NDArray[np.uint8], wider: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """Return the correlation of an image with the one at twice its scale: rebinned to one scale, and unchanged."""
    fine, coarse = (image.astype(np.float64).mean(axis=-1) for image in (pixels, wider))
    half = SIDE_PX // 2
    binned = fine.reshape(half, 2, half, 2).mean(axis=(1, 3))
    middle = slice(half // 2, half // 2 + half)
    rebinned = np.corrcoef(binned.ravel(), coarse[middle, middle].ravel())[0, 1]
    return float(rebinned), float(np.corrcoef(fine.ravel(), coarse.ravel())[0, 1])


def _check_headers(first: _Exchange) -> Check:
    name, expected = "headers of the cutout", "Content-Type image/jpeg, not compressed, no redirects"
    if first.reason is not Reason.NONE:
        return Check.skipped(name, expected, "no cutout")
    headers, n_redirects = first.received.headers, first.received.n_redirects
    kind, encoding = headers.get("Content-Type", "none"), headers.get("Content-Encoding", "identity")
    agrees = kind.startswith("image/jpeg") and encoding == "identity" and not n_redirects
    got = f"Content-Type {kind}, Content-Encoding {encoding}, {n_redirects} redirects"
    if agrees:
        return Check(name=name, verdict=Verdict.OK, expected=expected, got=got)
    advice = "images arrive nevertheless; if there are redirects, set base URL to the new address"
    return Check(name=name, verdict=Verdict.DIFFERS, expected=expected, got=got, advice=advice)


def _check_latency(exchanges: list[_Exchange], read_timeout_s: float) -> Check:
    name, expected = "latency", f"an image within half of read_timeout_s = {read_timeout_s:g} s"
    seconds = [exchange.seconds for exchange in exchanges if exchange.reason is Reason.NONE]
    if not seconds:
        return Check.skipped(name, expected, "no cutout")
    got = f"{max(seconds):.2f} s"
    if max(seconds) < read_timeout_s / 2:
        return Check(name=name, verdict=Verdict.OK, expected=expected, got=got)
    advice = "raise survey.read_timeout_s, or run at another time"
    return Check(name=name, verdict=Verdict.DIFFERS, expected=expected, got=got, advice=advice)
