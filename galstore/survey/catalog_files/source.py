"""Catalog file and its content, with limits on size and decompression."""

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

from galstore.survey.catalog_files.formats import ACCEPTED_FORMATS, HEAD_BYTES, CatalogFormat, detect_format
from schemas.errors import CatalogError

BLOCK_BYTES = 1 << 20

WHOLE_FILE_LIMIT_BYTES = 2 << 30
"""Formats that are read at once (VOTable, ECSV) take several times their size in memory; 2 GiB is 10 million rows."""

INFLATION_LIMIT = 200
"""gzip compresses catalogs 2 to 20 times; a file that grows 200 times and past 64 MiB is a decompression bomb."""

INFLATION_FREE_BYTES = 64 << 20

DAMAGE: tuple[type[BaseException], ...] = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError,
    SyntaxError, TypeError, ValueError, Warning, struct.error, zlib.error,
)  # fmt: skip
"""Builtin errors that pandas, astropy and pyarrow were seen to raise for damaged bytes, besides their special ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogSource:
    """Catalog file with a known format.

    Attributes
    ----------
    path
        Path of the file.
    kind
        Format of the (decompressed) content.
    is_gzipped
        Whether the file is compressed by gzip.
    size_bytes
        Size of the file on disk.
    """

    path: Path
    kind: CatalogFormat
    is_gzipped: bool
    size_bytes: int

    @property
    def origin(self) -> str:
        """Name in error messages."""
        return f"catalog {self.path}"

    def open_stream(self, *, at_most_bytes: int | None = None) -> BinaryIO:
        """Open the content, decompressed if necessary.

        Parameters
        ----------
        at_most_bytes
            Limit of the content's size. Gzipped content also has the limit `INFLATION_LIMIT`.

        Raises
        ------
        CatalogError
            The content is longer. For a gzipped file, reading from the stream raises this error.
        """
        if not self.is_gzipped:
            if at_most_bytes is not None and self.size_bytes > at_most_bytes:
                raise _too_long(self, at_most_bytes)
            return self.path.open("rb")
        limit = max(INFLATION_FREE_BYTES, INFLATION_LIMIT * self.size_bytes)
        limit = limit if at_most_bytes is None else min(limit, at_most_bytes)
        return cast(BinaryIO, io.BufferedReader(_Inflated(self, limit), BLOCK_BYTES))

    def read_whole(self) -> bytes:
        """Read the content, up to `WHOLE_FILE_LIMIT_BYTES`.

        Raises
        ------
        CatalogError
            The content is longer.
        """
        with self.open_stream(at_most_bytes=WHOLE_FILE_LIMIT_BYTES) as stream:
            return stream.read()


class _Inflated(io.RawIOBase):
    """Content of a gzipped file, up to a limit."""

    def __init__(self, source: CatalogSource, limit_bytes: int) -> None:
        self._source = source
        self._limit_bytes = limit_bytes
        self._n_bytes = 0
        self._file = gzip.open(source.path, "rb")  # noqa: SIM115 - closed in `close`

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
        f"{source.origin} holds more than {limit_bytes:,} bytes{' decompressed' if source.is_gzipped else ''}, the "
        f"limit for a {source.kind.value} file of this kind: export it as FITS or Parquet without gzip, which are read "
        "page by page"
    )


@contextmanager
def reading_errors(source: CatalogSource, *own: type[Exception]) -> Iterator[None]:
    """Convert the errors that a library raises for damaged bytes to CatalogError, and silence its warnings.

    Parameters
    ----------
    source
        File to read.
    own
        Error classes of the library that do not derive from `DAMAGE`.

    Raises
    ------
    CatalogError
        The file cannot be read in its format.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except CatalogError:
            raise
        except (*DAMAGE, *own) as error:
            message = " ".join(str(error).split())[:300] or type(error).__name__
            message = f"{message} is missing" if isinstance(error, KeyError) else message
            raise CatalogError(
                f"{source.origin} begins as {source.kind.value} but cannot be read ({message}): it is cut off or "
                "damaged, so export or download it again"
            ) from error


def detect_source(path: Path) -> CatalogSource:
    """Detect the format of a file.

    Raises
    ------
    CatalogError
        The path does not exist, is not a regular file, is empty, or has an unsupported format.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise CatalogError(f"catalog {path} is {what}: give the path of {ACCEPTED_FORMATS}")
        with path.open("rb") as opened:
            head = opened.read(HEAD_BYTES)
        is_gzipped = head.startswith(b"\x1f\x8b")
        if is_gzipped:
            with gzip.open(path, "rb") as opened:
                head = opened.read(HEAD_BYTES)
    except FileNotFoundError as error:
        raise CatalogError(f"catalog {path} does not exist: give the path of {ACCEPTED_FORMATS}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CatalogError(
            f"catalog {path} begins as gzip but cannot be decompressed ({error}): it is cut off or damaged, so export "
            "or download it again"
        ) from error
    except CatalogError:
        raise
    except (OSError, ValueError) as error:
        raise CatalogError(f"catalog {path} cannot be read ({error}): give the path of {ACCEPTED_FORMATS}") from error
    if not head:
        raise CatalogError(f"catalog {path} is empty: give a header line with object_id, ra, dec")
    kind = detect_format(head, path, is_gzipped=is_gzipped)
    return CatalogSource(path=path, kind=kind, is_gzipped=is_gzipped, size_bytes=status.st_size)
