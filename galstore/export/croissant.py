"""The table and the JPEGs described in Croissant 1.0, the vocabulary of machine-learning data sets."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galstore.cube.reader import Cube
from galstore.export.jpeg_folder import write_images
from galstore.export.parquet import write_parquet
from galstore.export.provenance import Provenance
from galstore.export.table import IMAGE_FILE, TableColumn, image_column, table_columns
from schemas.cutouts import SIDE_PX

_TABLE, _IMAGES = "catalog.parquet", "jpeg-files"

# the JSON-LD context that the specification prescribes, word for word
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def write_croissant(
    cube: Cube,
    folder: Path,
    rows: npt.NDArray[np.int64],
    provenance: Provenance,
    *,
    on_progress: Callable[[int], None],
) -> None:
    """Write `catalog.parquet`, `images/` and `metadata.json` with the record sets `objects` and `images`.

    `objects` is the table, every object of it; `images` has the objects with an image, the image beside the columns.
    See the Croissant format specification 1.0 (MLCommons, 2024).

    Parameters
    ----------
    cube
        The snapshot.
    folder
        An empty folder.
    rows
        Row numbers, shape (n,), ascending.
    provenance
        Part of the description.
    on_progress
        Called with how many objects have been written since the last call.
    """
    write_parquet(cube, folder / _TABLE, rows, provenance, extra_columns=(image_column(),), on_progress=lambda _: None)
    write_images(cube, folder, rows, on_progress=on_progress)
    with (folder / _TABLE).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    text = json.dumps(
        _description(provenance, table_columns(cube), table_sha256=digest), indent=2, sort_keys=True, ensure_ascii=False
    )
    (folder / "metadata.json").write_text(text + "\n", encoding="utf-8")


def _description(provenance: Provenance, columns: tuple[TableColumn, ...], *, table_sha256: str) -> dict[str, Any]:
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": re.sub(r"[^A-Za-z0-9._-]+", "-", f"galstore-{provenance.survey}"),
        "description": (
            f"{provenance.n_objects} galaxies of {provenance.sky}: catalog, labels and images as delivered. Snapshot "
            f"{provenance.snapshot_id}, exported by galstore {provenance.galstore}."
        ),
        "identifier": provenance.snapshot_id,
        "datePublished": provenance.committed[:10],
        "distribution": [
            {
                "@type": "cr:FileObject", "@id": _TABLE, "name": _TABLE, "contentUrl": _TABLE,
                "description": "Catalog, labels and state, one row an object",
                "encodingFormat": "application/x-parquet", "sha256": table_sha256,
            },
            {
                "@type": "cr:FileSet", "@id": _IMAGES, "name": _IMAGES, "includes": "images/*.jpg",
                "description": "JPEGs with the bytes that the survey delivered", "encodingFormat": "image/jpeg",
            },
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet", "@id": "objects", "name": "objects", "key": {"@id": "objects/object_id"},
                "description": "Every object, also those without an image",
                "field": list(_column_fields("objects", (*columns, image_column()))),
            },
            {
                "@type": "cr:RecordSet", "@id": "images", "name": "images", "key": {"@id": "images/object_id"},
                "description": "Objects that have an image, with the image",
                "field": [_image_field(provenance), *_column_fields("images", columns), _join_field()],
            },
        ],
    }  # fmt: skip


def _column_fields(record_set: str, columns: tuple[TableColumn, ...]) -> Iterator[dict[str, Any]]:
    for column in columns:
        unit = f", {column.unit}" if column.unit else ""
        none = f"; {column.null} = none" if column.null is not None else ""
        yield {
            "@type": "cr:Field", "@id": f"{record_set}/{column.name}", "name": column.name,
            "description": f"{column.description}{unit}{none}", "dataType": _data_type(column.type),
            "source": {"fileObject": {"@id": _TABLE}, "extract": {"column": column.name}},
        }  # fmt: skip


def _image_field(provenance: Provenance) -> dict[str, Any]:
    return {
        "@type": "cr:Field", "@id": "images/image", "name": "image", "dataType": "sc:ImageObject",
        "description": (
            f"Image of {SIDE_PX} x {SIDE_PX} px, {provenance.scale_in_words}; red, green and blue are the bands "
            f"{', '.join(provenance.scale.composite.bands)}"
        ),
        "source": {"fileSet": {"@id": _IMAGES}, "extract": {"fileProperty": "content"}},
    }  # fmt: skip


def _join_field() -> dict[str, Any]:
    """The field by which an image finds its row of the table."""
    return {
        "@type": "cr:Field", "@id": f"images/{IMAGE_FILE}", "name": IMAGE_FILE, "dataType": "sc:Text",
        "description": image_column().description,
        "source": {
            "fileSet": {"@id": _IMAGES},
            "extract": {"fileProperty": "fullpath"},
            "transform": {"regex": r"(images/\d+\.jpg)"},
        },
        "references": {"fileObject": {"@id": _TABLE}, "extract": {"column": IMAGE_FILE}},
    }  # fmt: skip


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_string(kind):
        return "sc:Text"
    return "sc:Integer" if pa.types.is_integer(kind) else "sc:Float"
