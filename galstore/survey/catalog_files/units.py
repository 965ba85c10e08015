"""Conversion of catalog columns from the unit in a file to the unit of the contract."""

from __future__ import annotations

import re
import warnings
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.catalog import SENTINEL
from schemas.errors import CatalogError

IMPLAUSIBLE = re.compile(r".{101}|.*(?<![.\d])\d{6}", re.DOTALL)
"""Text that is no unit: astropy computes 10**99999999999 digit by digit, which never ends."""

LOGARITHM = re.compile(r"(?:log10|log|lg)?\s*(?:\((?P<round>.+)\)|\[(?P<square>.+)\])", re.IGNORECASE)
"""Logarithm of a unit: log10(solMass), log(Msun/yr), or [solMass] in the notation of the CDS."""

SPELLINGS = {
    **dict.fromkeys(("degrees", "degs"), "deg"),
    **dict.fromkeys(("arcsecs", "arcseconds"), "arcsec"),
    **dict.fromkeys(("arcmins", "arcminutes"), "arcmin"),
    **dict.fromkeys(("mags", "magnitude", "magnitudes"), "mag"),
    **dict.fromkeys(("abmag", "mag_ab"), "mag(AB)"),
    **dict.fromkeys(("none", "unitless", "dimensionless", "null", "-", "--", "---"), ""),
    "radians": "rad",
    "hours": "hourangle",
}
"""Common spellings that astropy does not know, in lower case."""


def convert_unit(values: npt.NDArray[Any], *, got: str, expected: str) -> npt.NDArray[Any]:
    """Convert numbers to another unit; NaN and the sentinel -9999 are unchanged.

    `got` is a unit in the spelling of FITS, VOUnit, the CDS or astropy; empty = the expected unit. For an angle, `h` is
    the hour angle. AB magnitudes count as magnitudes, and a plain `dex` as the expected logarithm. The result is
    float64, or `values` itself if the units agree. The logarithm of 0 is -inf, of negative values NaN.

    Raises
    ------
    CatalogError
        The unit is unknown or cannot be converted. The message lacks its subject, which the caller adds.
    """
    import astropy.units as u

    target, have = _parse_unit(expected), _parse_unit(got)
    if have is None or target is None:
        raise CatalogError(
            f"has the unknown unit {got[:100]!r} where {expected or 'a plain number'!r} is expected: use a unit of the "
            "VOUnit standard, or leave it empty"
        )
    # a logarithm may come without its reference, as `dex` or as a plain number
    is_logarithm = isinstance(target, u.DexUnit) or target == u.dex
    if not got.strip() or have == target or (is_logarithm and have in (u.dex, u.dimensionless_unscaled)):
        return values
    if have == u.hour and target.is_equivalent(u.deg):
        have = u.hourangle
    if isinstance(have, u.MagUnit) and have.physical_unit == u.AB:
        have = have.function_unit
    numbers = values.astype(np.float64)
    try:
        with np.errstate(all="ignore"):
            # astropy converts magnitudes to dex (factor -0.4), but a column of dex for magnitudes is a mistake
            if not any(isinstance(unit, u.function.FunctionUnitBase) for unit in (have, target)) and not (
                0 < have.to(target) < np.inf
            ):
                raise u.UnitConversionError
            converted = np.asarray(have.to(target, numbers), dtype=np.float64)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise CatalogError(
            f"has unit {got!r}, which cannot be converted to {expected or 'a plain number'!r}: give it in "
            f"{expected or 'plain numbers'!r}, or rename the column if it holds something else"
        ) from error
    return np.where(numbers == SENTINEL, SENTINEL, converted)


@lru_cache(maxsize=1024)
def _parse_unit(text: str) -> Any:
    """Parse a unit; None if it is unknown."""
    import astropy.units as u

    text = text.strip().strip("\"'")
    text = SPELLINGS.get(text.lower(), text)
    if IMPLAUSIBLE.match(text):
        return None
    logarithm = LOGARITHM.fullmatch(text)
    if logarithm and (logarithm["square"] or text[0] not in "(["):
        inner = _parse_unit(logarithm["round"] or logarithm["square"])
        return None if inner is None or isinstance(inner, u.function.FunctionUnitBase) else u.dex(inner)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # astropy's default grammar reads VOUnits and FITS units; the CDS writes km.s-1 and solMass differently
        for grammar in (None, "cds"):
            try:
                return u.Unit(text, format=grammar)
            except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError):
                continue
    return None
