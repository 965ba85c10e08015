"""Rejections: why a row of a catalog cannot become an object of the cube."""

from __future__ import annotations

from enum import IntEnum

REJECTED_TABLE_COLUMNS = ("row", "object_id", "column", "reason", "value")
"""Columns of a table of rejected rows: row of the delivery from 0, id as delivered, column at fault, name of the
`RejectReason` in lower case, the value at fault as delivered."""


class RejectReason(IntEnum):
    """Why a row was rejected (`/rejected/reason`). Numbers are for life: cubes keep them."""

    MISSING = 0
    """A required value is blank, null, or the sentinel -9999."""
    NOT_A_NUMBER = 1
    """Text where a number should be."""
    OUT_OF_RANGE = 2
    """A number that its column cannot hold: a magnitude of 0, a declination of 120 degrees."""
    DAMAGED_ID = 3
    """An id beyond 2^53 that went through a float or a spreadsheet: its last digits are lost."""
    NOT_AN_ID = 4
    """An id that is no whole number of 64 bits."""
    REPEATED_ID = 5
    """A further row with the id of an earlier row of the same catalog; the first in the order of delivery is kept."""
