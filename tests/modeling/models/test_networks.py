import hashlib
import re

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from modeling.models.networks import build_network, choose_device, load_pretrained_weights
from schemas.cube import LEVELS
from schemas.errors import TrainingError, WeightsError
from schemas.recipes import NetworkSection


@pytest.mark.parametrize("level", LEVELS)
def test_the_small_network_takes_every_level(level):
    network = build_network(NetworkSection(arch="resnet10w32", level=level))
    network.train()
    assert network(torch.randn(2, 3, level, level)).shape == (2, 1)


@pytest.mark.parametrize(("arch", "n_features"), [("resnet18", 512), ("resnet34", 512), ("resnet50", 2048)])
def test_torchvisions_networks_have_the_papers_head(arch, n_features):
    network = build_network(NetworkSection(arch=arch), n_targets=5).eval()
    kinds = [type(layer).__name__ for layer in network.head]
    assert kinds == ["ConcatPool", "BatchNorm1d", "Dropout", "Linear", "ReLU", "BatchNorm1d", "Dropout", "Linear"]
    assert network.head[3].weight.shape == (512, 2 * n_features)
    assert (network.head[2].p, network.head[6].p) == (0.25, 0.5)
    assert network(torch.randn(1, 3, 32, 32)).shape == (1, 5)


def test_the_body_is_torchvisions():
    # an independent implementation: torchvision's network up to its average pooling
    theirs = models.resnet18(weights=None).eval()
    network = build_network(NetworkSection(arch="resnet18")).eval()
    network.body.load_state_dict({k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")})
    theirs.fc = torch.nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(network.head[0](network.body(images))[:, :512], theirs(images))


def test_the_small_network_has_one_block_a_stage_and_half_the_width():
    network = build_network(NetworkSection(arch="resnet10w32"))
    widths = [network.body.get_submodule(f"layer{stage}")[-1].conv2.out_channels for stage in (1, 2, 3, 4)]
    assert widths == [32, 64, 128, 256]


def test_the_head_stays_in_float32_under_autocast():
    network = build_network(NetworkSection(arch="resnet10w32")).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(torch.randn(2, 3, 32, 32)).dtype == torch.float32


def test_missing_imagenet_weights_name_the_searched_path(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    section = NetworkSection(arch="resnet34", weights="imagenet")
    with pytest.raises(WeightsError, match=r"checkpoints/resnet34-b627a593\.pth") as e:
        load_pretrained_weights(build_network(section), section)
    assert str(tmp_path) in str(e.value)
    assert "TORCH_HOME" in str(e.value)
    assert 'network.weights = "none"' in str(e.value)


def test_damaged_imagenet_weights_are_detected_by_their_digest(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "resnet34-b627a593.pth").write_bytes(b"half a download")
    section = NetworkSection(arch="resnet34", weights="imagenet")
    digest = hashlib.sha256(b"half a download").hexdigest()[:8]
    with pytest.raises(WeightsError, match=f"(?=.*\\b{digest}\\b)(?=.*\\bb627a593\\b)"):
        load_pretrained_weights(build_network(section), section)


def test_the_small_network_does_not_have_imagenet_weights():
    section = NetworkSection(arch="resnet10w32", weights="imagenet")
    with pytest.raises(WeightsError, match=r"(?=.*\bresnet10w32\b)(?=.*\bresnet18\b)"):
        load_pretrained_weights(build_network(section), section)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_of_a_path_are_loaded_into_the_body_and_the_head_is_unchanged(tmp_path, suffix):
    theirs = models.resnet18(weights=None).state_dict()
    path = tmp_path / f"weights{suffix}"
    save_file(theirs, path) if suffix == ".safetensors" else torch.save(theirs, path)
    section = NetworkSection(arch="resnet18", weights=str(path))
    network = build_network(section)
    head = network.head[3].weight.clone()
    load_pretrained_weights(network, section)
    assert torch.equal(network.body.get_submodule("layer4")[1].conv2.weight, theirs["layer4.1.conv2.weight"])
    assert torch.equal(network.head[3].weight, head)


def test_weights_of_another_architecture_are_refused(tmp_path):
    path = tmp_path / "resnet18.pth"
    torch.save(models.resnet18(weights=None).state_dict(), path)
    section = NetworkSection(arch="resnet34", weights=str(path))
    with pytest.raises(WeightsError, match=r"(?=.*resnet18\.pth)(?=.*layer1\.2\.conv1\.weight)(?=.*\bnetwork\.arch\b)"):
        load_pretrained_weights(build_network(section), section)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_file_without_weights_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"<html>not found</html>")
    section = NetworkSection(arch="resnet18", weights=str(tmp_path / name))
    with pytest.raises(WeightsError, match=re.escape(str(tmp_path / name))):
        load_pretrained_weights(build_network(section), section)


class _Payload:
    def __reduce__(self):
        return (print, ("code from a file of weights",))


def test_code_in_a_file_of_weights_is_not_executed(tmp_path, capsys):
    torch.save({"conv1.weight": _Payload()}, tmp_path / "weights.pth")
    section = NetworkSection(arch="resnet18", weights=str(tmp_path / "weights.pth"))
    with pytest.raises(WeightsError, match=r"weights\.pth"):
        load_pretrained_weights(build_network(section), section)
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_an_error_only_if_requested():
    assert choose_device("auto").type == "cpu"
    with pytest.raises(TrainingError, match=r'(?=.*device = "cuda")(?=.*device = "auto")'):
        choose_device("cuda")
