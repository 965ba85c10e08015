"""The file that a catalog comes in, and streams of it that end before memory does."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from galstore.survey.catalog_files.formats import ASKED_FOR, HEAD_BYTES, CatalogFormat, recognise_format
from schemas.errors import CatalogError

BLOCK_BYTES = 1 << 20

WHOLE_FILE_LIMIT_BYTES = 2 << 30
"""Formats that are read whole (VOTable, ECSV) take several times their size in memory; 2 GiB is 10 million rows."""

INFLATION_LIMIT = 200
"""Catalogs shrink 2 to 20 times under gzip; a file that grows 200 times and past 64 MiB is built to fill memory."""

INFLATION_FREE_BYTES = 64 << 20

DAMAGE: tuple[type[BaseException], ...] = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError,
    SyntaxError, TypeError, ValueError, Warning, struct.error, zlib.error,
)  # fmt: skip
"""What pandas, astropy and pyarrow were seen to raise for damaged bytes, besides errors of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogSource:
    """A file whose format is known.

    Attributes
    ----------
    path
        The file.
    kind
        What its content says it is.
    is_gzipped
        It is compressed by gzip; `kind` is what lies within.
    size_bytes
        Size of the file as it lies there.
    """

    path: Path
    kind: CatalogFormat
    is_gzipped: bool
    size_bytes: int

    @property
    def origin(self) -> str:
        """What error messages call it."""
        return f"catalog {self.path}"

    def open_stream(self, *, at_most_bytes: int | None = None) -> BinaryIO:
        """The content from its beginning, unpacked where it is gzipped.

        Parameters
        ----------
        at_most_bytes
            Refuse a longer content. A gzipped one is refused, too, where it grows like nothing but a trap does.

        Raises
        ------
        CatalogError
            The file is longer; from reading where it is gzipped, else from here.
        """
        if not self.is_gzipped:
            if at_most_bytes is not None and self.size_bytes > at_most_bytes:
                raise _too_long(self, at_most_bytes)
            return self.path.open("rb")
        limit = max(INFLATION_FREE_BYTES, INFLATION_LIMIT * self.size_bytes)
        limit = limit if at_most_bytes is None else min(limit, at_most_bytes)
        return cast(BinaryIO, io.BufferedReader(_Inflated(self, limit), BLOCK_BYTES))

    def read_whole(self) -> bytes:
        """The content, of at most `WHOLE_FILE_LIMIT_BYTES`.

        Raises
        ------
        CatalogError
            It is longer.
        """
        with self.open_stream(at_most_bytes=WHOLE_FILE_LIMIT_BYTES) as stream:
            return stream.read()


class _Inflated(io.RawIOBase):
    """A gzipped file's content, up to a number of bytes."""

    def __init__(self, source: CatalogSource, limit_bytes: int) -> None:
        self._source = source
        self._limit_bytes = limit_bytes
        self._n_bytes = 0
        self._file = gzip.open(source.path, "rb")  # noqa: SIM115 - closed with this one

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        block = self._file.read(min(len(buffer), BLOCK_BYTES))
        self._n_bytes += len(block)
        if self._n_bytes > self._limit_bytes:
            raise _too_long(self._source, self._limit_bytes)
        buffer[: len(block)] = block
        return len(block)

    def close(self) -> None:
        self._file.close()
        super().close()


def _too_long(source: CatalogSource, limit_bytes: int) -> CatalogError:
    return CatalogError(
        f"{source.origin} holds more than {limit_bytes:,} bytes{' unpacked' if source.is_gzipped else ''}, the most "
        f"that is read of a {source.kind.value} of this kind: export it as FITS or Parquet without gzip, which are "
        "read piece by piece"
    )


@contextmanager
def damage_told(source: CatalogSource, *own: type[Exception]) -> Iterator[None]:
    """Within it, warnings are silent, and what a library raises for bytes that it cannot read becomes a CatalogError.

    Parameters
    ----------
    source
        The file that is read.
    own
        Errors of the library's own that are no builtins.

    Raises
    ------
    CatalogError
        The file cannot be read as what it begins as.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except CatalogError:
            raise
        except (*DAMAGE, *own) as error:
            told = " ".join(str(error).split())[:300] or type(error).__name__
            told = f"it lacks {told}" if isinstance(error, KeyError) else told
            raise CatalogError(
                f"{source.origin} begins as {source.kind.value} but cannot be read as it ({told}): it is cut off or "
                "damaged, so export or download it again"
            ) from error


def recognise_source(path: Path) -> CatalogSource:
    """Which format a file has, by its first bytes.

    Raises
    ------
    CatalogError
        There is no such file, it is none (a folder, a device), it is empty, or it is of no format that is read.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "no plain file"
            raise CatalogError(f"catalog {path} is {what}: give the path of {ASKED_FOR}")
        with path.open("rb") as opened:
            head = opened.read(HEAD_BYTES)
        is_gzipped = head.startswith(b"\x1f\x8b")
        if is_gzipped:
            with gzip.open(path, "rb") as opened:
                head = opened.read(HEAD_BYTES)
    except FileNotFoundError as error:
        raise CatalogError(f"catalog {path} does not exist: give the path of {ASKED_FOR}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CatalogError(
            f"catalog {path} begins as gzip but cannot be unpacked ({error}): it is cut off or damaged, so export or "
            "download it again"
        ) from error
    except CatalogError:
        raise
    except (OSError, ValueError) as error:
        raise CatalogError(f"catalog {path} cannot be read ({error}): give the path of {ASKED_FOR}") from error
    if not head:
        raise CatalogError(f"catalog {path} is empty: it needs a header line with object_id, ra, dec")
    kind = recognise_format(head, path, is_gzipped=is_gzipped)
    return CatalogSource(path=path, kind=kind, is_gzipped=is_gzipped, size_bytes=status.st_size)
