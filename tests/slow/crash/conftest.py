"""Fixtures of the crash tests: a survey, an S3 server, and workers that outlive the runs."""

from __future__ import annotations

from collections.abc import Iterator

import distributed
import pytest

from flows.runtime import dask_client
from schemas.recipes import DaskSection
from tests.slow.crash.runs import Launcher, Survey, serving_survey, warm_up
from tests.support.s3 import s3_endpoint, s3_server

__all__ = ["s3_endpoint", "s3_server"]


@pytest.fixture(scope="session")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Survey]:
    with serving_survey(tmp_path_factory.mktemp("survey")) as survey:
        yield survey


@pytest.fixture(scope="module")
def lasting_workers(s3_endpoint: str) -> Iterator[distributed.Client]:
    """Two workers that outlive the runs that use them."""
    with dask_client(DaskSection(workers=2), n_tasks=2) as client:
        # otherwise imports and compilation make the first run three times as long as the others
        client.run(warm_up)
        yield client


@pytest.fixture(scope="module")
def launcher(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    with Launcher(tmp_path_factory.mktemp("launcher") / "stderr.log") as launcher:
        yield launcher
