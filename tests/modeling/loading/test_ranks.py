import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from modeling.loading.ranks import Ranks
from tests.conftest import ROOT


def curve_of(file, n_ranks):
    words = ["-m", "tests.support.ranks_program", str(file)]
    if n_ranks > 1:
        words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n_ranks), *words]
    subprocess.run(
        [sys.executable, *words], cwd=ROOT, check=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    return np.array(json.loads(file.read_text()))


@pytest.mark.long
@pytest.mark.slow
def test_two_ranks_follow_the_curve_of_one(tmp_path):
    single, double = curve_of(tmp_path / "one", 1), curve_of(tmp_path / "two", 2)
    # they differ by rounding alone, which grows from step to step
    np.testing.assert_allclose(double[:2], single[:2], rtol=1e-4)
    np.testing.assert_allclose(double, single, rtol=5e-3)


@pytest.mark.parametrize("n", [2, 7, 64])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_parts_of_a_batch_are_the_batch(n, world):
    parts = [Ranks(rank=rank, world=world).local_slice(n) for rank in range(world)]
    assert [place for part in parts for place in range(part.start, part.stop)] == list(range(n))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_a_single_process_changes_nothing():
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    Ranks().synchronise_batch_norm(network)
    assert type(network[1]) is nn.BatchNorm1d
    values = torch.ones(5, 2)
    assert Ranks().gather(values, 5) is values
