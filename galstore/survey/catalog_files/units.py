"""Conversion of catalog columns from the unit in a file to the unit of the contract."""

from __future__ import annotations

import re
import warnings
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from schemas.catalog import SENTINEL, Column
from schemas.errors import CatalogError

if TYPE_CHECKING:
    from astropy.units import UnitBase
    from astropy.units.function import FunctionUnitBase

MAX_UNIT_CHARACTERS = 100
"""Maximum length of a unit; the longest in use have 40 characters."""

LONG_INTEGER = re.compile(r"(?<![.\d])\d{6}")
"""astropy computes 10**99999999999 digit by digit, which never ends; no unit has a number this long."""

LOGARITHM = re.compile(r"(?:log10|log|lg)?\s*(?:\((?P<round>.+)\)|\[(?P<square>.+)\])", re.IGNORECASE)
"""Logarithm of a unit: log10(solMass), log(Msun/yr), or [solMass] in the notation of the CDS."""

SPELLINGS = {
    spelling: unit
    for unit, spellings in {
        "deg": "degrees degs",
        "rad": "radians",
        "hourangle": "hours",
        "arcsec": "arcsecs arcseconds",
        "arcmin": "arcmins arcminutes",
        "mag": "mags magnitude magnitudes",
        "mag(AB)": "abmag mag_ab",
        "": "none unitless dimensionless null - -- ---",
    }.items()
    for spelling in spellings.split()
}
"""Common spellings that astropy does not know, in lower case."""


def contract_unit(column: Column) -> str:
    """Return the unit of a contract column; the logarithm of a plain number has the unit `dex`."""
    return "dex" if not column.unit and "log" in column.symbol else column.unit


def is_plausible_unit(text: str) -> bool:
    """Return True for a text that astropy can parse safely."""
    return len(text) <= MAX_UNIT_CHARACTERS and not LONG_INTEGER.search(text)


def convert_unit(values: npt.NDArray[Any], *, got: str, expected: str) -> npt.NDArray[Any]:
    """Convert values to another unit.

    Parameters
    ----------
    values
        Numbers in the unit `got`; NaN and the sentinel -9999 are unchanged.
    got
        Unit in the spelling of FITS, VOUnit, the CDS or astropy; empty = the expected unit. For an angle, `h` is the
        hour angle. AB magnitudes count as magnitudes, and a plain `dex` as the expected logarithm.
    expected
        Unit of the contract.

    Returns
    -------
    ndarray
        float64, or `values` itself if the units agree. The logarithm of 0 is -inf, of negative values NaN.

    Raises
    ------
    CatalogError
        The unit is unknown or cannot be converted. The message lacks its subject, which the caller adds.

    Examples
    --------
    >>> convert_unit(np.array([3600.0, -9999.0]), got="arcsec", expected="deg").tolist()
    [1.0, -9999.0]
    >>> convert_unit(np.array([12.0]), got="h", expected="deg").round(9).tolist()
    [180.0]
    >>> convert_unit(np.array([1e10]), got="solMass", expected="log10(solMass)").tolist()
    [10.0]
    >>> convert_unit(np.array([1.0]), got="Jy", expected="mag")
    Traceback (most recent call last):
    schemas.errors.CatalogError: has unit 'Jy', which cannot be converted to 'mag': give it in 'mag', ...
    """
    target = _parse_unit(expected)
    have = _parse_unit(got)
    if have is None or target is None:
        raise CatalogError(
            f"has the unknown unit {got[:MAX_UNIT_CHARACTERS]!r} where {expected or 'a plain number'!r} is expected: "
            "use a unit of the VOUnit standard, or leave it empty"
        )
    if not got.strip() or have == target or _is_same_logarithm(have, target):
        return values
    import astropy.units as u

    numbers = values.astype(np.float64)
    if have == u.hour and target.is_equivalent(u.deg):
        have = u.hourangle
    if isinstance(have, u.MagUnit) and have.physical_unit == u.AB:
        have = have.function_unit
    try:
        with np.errstate(all="ignore"):
            if not isinstance(have, u.function.FunctionUnitBase) and not isinstance(
                target, u.function.FunctionUnitBase
            ):
                # astropy converts magnitudes to dex (factor -0.4), but a column of dex for magnitudes is a mistake
                factor = have.to(target)
                if not 0 < factor < np.inf:
                    raise u.UnitConversionError
            converted = np.asarray(have.to(target, numbers), dtype=np.float64)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise CatalogError(
            f"has unit {got!r}, which cannot be converted to {expected or 'a plain number'!r}: give it in "
            f"{expected or 'plain numbers'!r}, or rename the column if it holds something else"
        ) from error
    return np.where(numbers == SENTINEL, SENTINEL, converted)


def _is_same_logarithm(have: UnitBase | FunctionUnitBase, target: UnitBase | FunctionUnitBase) -> bool:
    """Return True if the file gives a logarithm without its reference, as `dex` or as a plain number."""
    import astropy.units as u

    is_logarithm = isinstance(target, u.DexUnit) or target == u.dex
    return bool(is_logarithm and have in (u.dex, u.dimensionless_unscaled))


@lru_cache(maxsize=1024)
def _parse_unit(text: str) -> Any:
    """Parse a unit; None if it is unknown."""
    import astropy.units as u

    text = text.strip().strip("\"'")
    text = SPELLINGS.get(text.lower(), text)
    if not is_plausible_unit(text):
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
