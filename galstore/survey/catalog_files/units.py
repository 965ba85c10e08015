"""Units of catalog columns: from the unit that a file declares to the unit of the contract."""

from __future__ import annotations

import re
import warnings
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.catalog import SENTINEL, Column
from schemas.errors import CatalogError

LONGEST_UNIT = 100
"""Characters of a unit; the longest that are in use have 40."""

LONG_INTEGER = re.compile(r"(?<![.\d])\d{6}")
"""astropy works out 10**99999999999 digit by digit, which takes for ever; no unit has such a number."""

LOGARITHM = re.compile(r"(?:log10|log|lg)?\s*(?:\((?P<round>.+)\)|\[(?P<square>.+)\])", re.IGNORECASE)
"""log10(solMass), log(Msun/yr), and [solMass], as the CDS writes it."""

SPELLINGS = {
    "degrees": "deg", "degs": "deg", "radians": "rad", "hours": "hourangle", "arcsecs": "arcsec",
    "arcseconds": "arcsec", "arcmins": "arcmin", "arcminutes": "arcmin", "mags": "mag", "magnitude": "mag",
    "magnitudes": "mag", "abmag": "mag(AB)", "mag_ab": "mag(AB)", "none": "", "unitless": "", "dimensionless": "",
    "null": "", "-": "", "--": "", "---": "",
}  # fmt: skip
"""Spellings in use that astropy does not know, in lower case."""


def contract_unit(column: Column) -> str:
    """The unit of a column of the contract, where a logarithm of a plain number is a `dex`."""
    return "dex" if not column.unit and "log" in column.symbol else column.unit


def is_plausible_unit(text: str) -> bool:
    """Whether a text can be a unit, so that astropy may be asked for its meaning."""
    return len(text) <= LONGEST_UNIT and not LONG_INTEGER.search(text)


def convert_unit(values: npt.NDArray[Any], *, got: str, expected: str) -> npt.NDArray[Any]:
    """Values in one unit, told in another.

    Parameters
    ----------
    values
        Numbers in the unit `got`; NaN and the sentinel -9999 stay what they are.
    got
        A unit as files declare it (FITS, VOUnit, CDS or astropy's own spelling); empty = it is the expected one.
        `h` of an angle is the hour angle; AB magnitudes are magnitudes; `dex` alone is the logarithm that is expected.
    expected
        Unit of the contract.

    Returns
    -------
    ndarray
        float64, or `values` itself where the units are the same. The logarithm of 0 is -inf, of less is NaN.

    Raises
    ------
    CatalogError
        The unit is unknown, or cannot be converted; the message begins with a verb, for its caller to say whose.

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
    wanted = _parsed(expected)
    have = _parsed(got)
    if have is None or wanted is None:
        raise CatalogError(
            f"has the unknown unit {got[:LONGEST_UNIT]!r} where {expected or 'a plain number'!r} is expected: name the "
            "unit as the VOUnit standard does, or leave it out"
        )
    if not got.strip() or have == wanted or _is_same_logarithm(have, wanted):
        return values
    import astropy.units as u

    numbers = values.astype(np.float64)
    if have == u.hour and wanted.is_equivalent(u.deg):
        have = u.hourangle
    if isinstance(have, u.MagUnit) and have.physical_unit == u.AB:
        have = have.function_unit
    try:
        with np.errstate(all="ignore"):
            if not isinstance(have, u.function.FunctionUnitBase) and not isinstance(
                wanted, u.function.FunctionUnitBase
            ):
                # astropy takes a magnitude for -0.4 dex, but a column of dex where magnitudes belong is a mistake
                factor = have.to(wanted)
                if not 0 < factor < np.inf:
                    raise u.UnitConversionError
            converted = np.asarray(have.to(wanted, numbers), dtype=np.float64)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise CatalogError(
            f"has unit {got!r}, which cannot be converted to {expected or 'a plain number'!r}: give it in "
            f"{expected or 'plain numbers'!r}, or rename the column if it holds something else"
        ) from error
    return np.where(numbers == SENTINEL, SENTINEL, converted)


def _is_same_logarithm(have: Any, wanted: Any) -> bool:
    """A logarithm whose reference the file leaves out: `dex`, or nothing at all."""
    import astropy.units as u

    is_logarithm = isinstance(wanted, u.DexUnit) or wanted == u.dex
    return bool(is_logarithm and have in (u.dex, u.dimensionless_unscaled))


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Any:
    """The unit that a text means; None where it means none."""
    import astropy.units as u

    text = text.strip().strip("\"'")
    text = SPELLINGS.get(text.lower(), text)
    if not is_plausible_unit(text):
        return None
    logarithm = LOGARITHM.fullmatch(text)
    if logarithm and (logarithm["square"] or text[0] not in "(["):
        inner = _parsed(logarithm["round"] or logarithm["square"])
        return None if inner is None or isinstance(inner, u.function.FunctionUnitBase) else u.dex(inner)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # VOUnits and FITS units are read by astropy's own grammar; the CDS writes km.s-1 and solMass otherwise
        for grammar in (None, "cds"):
            try:
                return u.Unit(text, format=grammar)
            except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError):
                continue
    return None
