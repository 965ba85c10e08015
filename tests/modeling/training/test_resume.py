"""A training that is killed repeatedly ends with the weights of an uninterrupted training."""

import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from modeling.training.resume import ResumeFile
from schemas.errors import WeightsError
from tests.conftest import ROOT

N_KILLS, N_KILLS_LONG = 1, 20


def start(folder: Path, method: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.support.training_program", str(folder), method]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["one_cycle", "wu_boada_2019"])
def test_a_killed_training_ends_with_the_same_bits(tmp_path, method, long_run):
    if method != "one_cycle" and not long_run:
        pytest.skip("the second method runs with --long")
    with start(tmp_path / "whole", method) as run:
        assert run.wait() == 0
    rng = np.random.default_rng(6)
    n_killed, n_resumed = 0, 0
    folder = tmp_path / "killed"
    for _ in range(N_KILLS_LONG if long_run else N_KILLS):
        with start(folder, method) as run:
            assert run.stdout is not None
            run.stdout.readline()
            n_resumed += (folder / "progress.pt").exists()
            while not (folder / "progress.pt").exists() and run.poll() is None:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.5))
            if run.poll() is None:
                os.kill(run.pid, signal.SIGKILL)
                n_killed += 1
        if (folder / "weights.safetensors").exists():
            break
    with start(folder, method) as run:
        n_resumed += (folder / "progress.pt").exists()
        assert run.wait() == 0
    whole, killed = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "killed"))
    assert n_killed >= 1
    assert n_resumed >= n_killed
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    assert not (folder / "progress.pt").exists()


def test_the_file_of_another_training_is_ignored(tmp_path):
    ResumeFile(tmp_path / "p", "one").write({"epoch": 3})
    assert ResumeFile(tmp_path / "p", "one").read() == {"identity": "one", "epoch": 3}
    assert ResumeFile(tmp_path / "p", "other").read() is None
    assert ResumeFile(tmp_path / "none", "one").read() is None


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "p"
    ResumeFile(path, "one").write({"weights": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(WeightsError, match=rf"{re.escape(str(path))}\b.*\bprogress\b"):
        ResumeFile(path, "one").read()


def test_code_in_the_file_is_not_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    (tmp_path / "p").write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(WeightsError, match=rf"{re.escape(str(tmp_path / 'p'))}\b.*\bprogress\b"):
        ResumeFile(tmp_path / "p", "one").read()
    assert not (tmp_path / "executed").exists()
