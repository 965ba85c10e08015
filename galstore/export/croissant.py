"""Table and JPEGs described in Croissant 1.0 (MLCommons, 2024), the vocabulary of machine-learning data sets."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from galstore.export.jpeg_folder import write_images
from galstore.export.object_table import IMAGE_FILE, ExportRequest, TableColumn, cube_columns, cube_table, image_column
from galstore.export.parquet import write_parquet
from galstore.export.provenance import ExportProvenance
from schemas.cutouts import SIDE_PX

_TABLE, _IMAGES = "catalog.parquet", "jpeg-files"

_TERMS = (
    "citeAs column extract field fileObject fileProperty fileSet format includes isLiveDataset jsonPath key md5 "
    "parentField path recordSet references regex repeated replace samplingRate separator source subField transform"
)
# JSON-LD context prescribed by the specification
_CONTEXT = {
    **{term: f"cr:{term}" for term in _TERMS.split()},
    "@language": "en",
    "@vocab": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
}


def write_croissant(request: ExportRequest, folder: Path) -> None:
    """Write `catalog.parquet`, `images/` and `metadata.json` ; the record set `images` lacks objects without one."""
    table = cube_table(request.cube, with_images=True)
    write_parquet(replace(request, table=table, on_progress=lambda _: None), folder / _TABLE)
    write_images(request, folder)
    with (folder / _TABLE).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    metadata = _metadata(request.provenance, cube_columns(request.cube), digest)
    text = json.dumps(metadata, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / "metadata.json").write_text(text + "\n", encoding="utf-8")


def _metadata(provenance: ExportProvenance, columns: tuple[TableColumn, ...], table_sha256: str) -> dict[str, object]:
    image_fields = [_image_field(provenance), *_column_fields("images", columns), _join_field()]
    table_file = {"contentUrl": _TABLE, "encodingFormat": "application/x-parquet", "sha256": table_sha256}
    image_files = {"includes": "images/*.jpg", "encodingFormat": "image/jpeg"}
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
            _node("cr:FileObject", _TABLE, "Catalog, labels and state", **table_file),
            _node("cr:FileSet", _IMAGES, "JPEGs", **image_files),
        ],
        "recordSet": [
            _node("cr:RecordSet", name, description, key={"@id": f"{name}/object_id"}, field=fields)
            for name, description, fields in (
                ("objects", "All objects", list(_column_fields("objects", (*columns, image_column())))),
                ("images", "Objects with an image", image_fields),
            )
        ],
    }


def _node(kind: str, path: str, description: str, **properties: object) -> dict[str, object]:
    name = path.rpartition("/")[2]
    return {"@type": kind, "@id": path, "name": name, "description": description, **properties}


def _column_fields(record_set: str, columns: tuple[TableColumn, ...]) -> Iterator[dict[str, object]]:
    for column in columns:
        unit = f", {column.unit}" if column.unit else ""
        null = f"; {column.null} = none" if column.null is not None else ""
        source = {"fileObject": {"@id": _TABLE}, "extract": {"column": column.name}}
        description, data_type = f"{column.description}{unit}{null}", _data_type(column.type)
        yield _node("cr:Field", f"{record_set}/{column.name}", description, dataType=data_type, source=source)


def _image_field(provenance: ExportProvenance) -> dict[str, object]:
    description = f"Image of {SIDE_PX} x {SIDE_PX} px, {provenance.image_description}"
    source = {"fileSet": {"@id": _IMAGES}, "extract": {"fileProperty": "content"}}
    return _node("cr:Field", "images/image", description, dataType="sc:ImageObject", source=source)


def _join_field() -> dict[str, object]:
    # joins an image to its row of the table
    source = {"fileSet": {"@id": _IMAGES}, "extract": {"fileProperty": "fullpath"}}
    source["transform"] = {"regex": r"(images/\d+\.jpg)"}
    row = {"fileObject": {"@id": _TABLE}, "extract": {"column": IMAGE_FILE}}
    description = image_column().description
    return _node("cr:Field", f"images/{IMAGE_FILE}", description, dataType="sc:Text", source=source, references=row)


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_string(kind):
        return "sc:Text"
    return "sc:Integer" if pa.types.is_integer(kind) else "sc:Float"
