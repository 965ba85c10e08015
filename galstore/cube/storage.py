"""Storage of a cube: a local folder or a prefix of an S3 bucket."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import icechunk

from schemas.errors import StoreError

MANIFEST_SPLIT_CHUNKS = 1024
"""Chunks of one manifest along `object`. Unsplit, a commit costs 3 ms at 1 k chunks but 83 ms at 65 k."""


LOGS_FILTER = ",".join(
    (
        "warn",
        # local folders are unsafe with several writers, says each opening; `write_lock` makes them safe
        "icechunk::storage::object_store=error",  # Icechunk 1
        "icechunk_arrow_object_store=error",  # Icechunk 2
        # writes are not stamped against lost responses; `commit` looks for its own id instead
        "icechunk_storage::readback=error",
    )
)


def is_remote(path: str) -> bool:
    return "://" in path


def open_storage(path: str) -> icechunk.Storage:
    """Return Icechunk's storage of a cube, with the credentials of the environment for S3."""
    icechunk.set_logs_filter(LOGS_FILTER)
    if not is_remote(path):
        return icechunk.local_filesystem_storage(str(Path(path).expanduser()))
    url = urlsplit(path)
    if url.scheme != "s3" or not url.netloc or not url.path.strip("/"):
        raise StoreError(f"got {path!r}, expected a local folder or s3://bucket/prefix: change store.path")
    # credentials come from the environment or the standard AWS files, and are never stored
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return icechunk.s3_storage(
        bucket=url.netloc,
        prefix=url.path.strip("/"),
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        endpoint_url=endpoint,
        allow_http=bool(endpoint and endpoint.startswith("http://")),
        force_path_style=endpoint is not None,
        from_env=True,
    )


def repository_config() -> icechunk.RepositoryConfig:
    """Return the configuration of a new repository: no inline chunks, manifests split along `object`."""
    config = icechunk.RepositoryConfig.default()
    config.inline_chunk_threshold_bytes = 0  # every commit would rewrite small chunks inside manifests
    along_object: dict[Any, int] = {icechunk.ManifestSplitDimCondition.DimensionName("object"): MANIFEST_SPLIT_CHUNKS}
    config.manifest = icechunk.ManifestConfig(
        splitting=icechunk.ManifestSplittingConfig.from_dict({icechunk.ManifestSplitCondition.AnyArray(): along_object})
    )
    return config


@contextmanager
def storage_errors(path: str) -> Iterator[None]:
    """Convert errors of a disk or an object store (no space, no bucket, no permission) to `StoreError`."""
    try:
        yield
    except icechunk.IcechunkError as error:
        if not is_remote(path):
            raise StoreError(
                f"the cube at {path} cannot be read or written ({first_line(error)}): check whether the disk is full "
                "or its files were changed by hand"
            ) from error
        raise StoreError(
            f"the object store of {path} refuses or does not respond ({first_line(error)}): check the bucket, "
            "AWS_ENDPOINT_URL, AWS_REGION, and the credentials in the environment or the AWS files"
        ) from error


def first_line(error: Exception) -> str:
    """Return the first line of a message that is not empty; Icechunk draws a frame around its messages."""
    lines = (line.strip(" x\u00d7\u2502|") for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)
