"""S3 on loopback for the integration tests."""

from __future__ import annotations

from tests.support.s3 import s3_endpoint, s3_server

__all__ = ["s3_endpoint", "s3_server"]
