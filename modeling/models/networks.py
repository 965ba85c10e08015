"""Residual networks with the head of Wu & Boada (2019), and their pretrained weights."""

from __future__ import annotations

import hashlib
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import BasicBlock

from schemas.errors import TrainingError, WeightsError
from schemas.recipes import NetworkSection

N_BANDS = 3
HEAD_UNITS = 512
BODY_PARTS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
"""torchvision's names of a ResNet's modules before the pooling, in order of application."""
LOG_VARIANCE_RANGE = (-6.0, 6.0)
"""Limits a predicted sigma to 0.05 ... 20 times the scatter of the label: without limits, one batch can ruin a fit."""


class ConcatPool(nn.Module):
    """Average and maximum pooling over y and x, concatenated: (n, c, y, x) -> (n, 2c), in float32."""

    def forward(self, features: Tensor) -> Tensor:
        features = features.float()
        return torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)


class GalaxyNetwork(nn.Module):
    """Convolutional body with a regression head.

    The body, (n, band, y, x) -> (n, `n_features`, y', x'), may run in bfloat16 under autocast. Pooling and head always
    run in float32: the spacing of bfloat16 at a metallicity of 8.7 is 0.06 dex, as large as the expected error. Dropout
    is applied before the first and before the second linear layer.
    """

    def __init__(self, body: nn.Module, *, n_features: int, dropout: tuple[float, float], n_targets: int) -> None:
        super().__init__()
        self.n_features = n_features
        self.n_outputs = n_targets
        self.body = body
        self.head = nn.Sequential(
            ConcatPool(),
            nn.BatchNorm1d(2 * n_features),
            nn.Dropout(dropout[0]),
            nn.Linear(2 * n_features, HEAD_UNITS),
            nn.ReLU(inplace=True),
            nn.BatchNorm1d(HEAD_UNITS),
            nn.Dropout(dropout[1]),
            nn.Linear(HEAD_UNITS, n_targets),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Predict standardised labels of normalised images: (n, band, y, x) -> (n, n_targets), float32."""
        return self.predict_and_pool(images)[0]

    def predict_and_pool(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output of `forward`, and the body's features averaged over y and x: (n, n_features), float32."""
        features = self.body(images)
        with torch.autocast(device_type=features.device.type, enabled=False):
            features = features.float()
            predicted: Tensor = self.head(features)
        return predicted, features.mean(dim=(2, 3))


def build_network(section: NetworkSection, *, n_targets: int = 1) -> GalaxyNetwork:
    """Build the network of a recipe with random weights: (n, band, y, x) float32 -> (n, n_targets).

    Weights are drawn from torch's CPU generator: seed it (`torch.manual_seed`) inside `torch.random.fork_rng()` for a
    reproducible start, as `train_network` does.

    `arch` is torchvision's resnet18, resnet34 (the paper's) or resnet50, or `resnet10w32`: one basic block per stage
    and half the width, 1.4 million parameters, for two cores. Each takes images of all levels, 128 to 1 px. The head
    follows Wu & Boada (2019), section 3.2: average and maximum pooling, then batch normalisation, dropout and a linear
    layer, twice.
    """
    if section.arch == "resnet10w32":
        body, n_features = _narrow_body(), 256
    else:
        resnet = models.get_model(section.arch, weights=None)
        body = nn.Sequential(OrderedDict((name, getattr(resnet, name)) for name in BODY_PARTS))
        n_features = resnet.fc.in_features
    return GalaxyNetwork(body, n_features=n_features, dropout=section.dropout, n_targets=n_targets)


def load_pretrained_weights(network: GalaxyNetwork, section: NetworkSection) -> None:
    """Load the pretrained weights named by a recipe into the body of a network in place; the head is unchanged.

    `weights` is 'none' (no change), 'imagenet' (torchvision's IMAGENET1K_V1 file of this architecture under
    `$TORCH_HOME/hub/checkpoints`, which is not downloaded), or the path of a torchvision state dictionary or of a
    `model.safetensors` of galstore.

    Raises
    ------
    WeightsError
        The file does not exist, differs from the SHA-256 in its name, or belongs to another architecture.
    """
    if section.weights == "none":
        return
    path = _imagenet_file(section.arch) if section.weights == "imagenet" else Path(section.weights)
    if not path.is_file():
        hint = ""
        if section.weights == "imagenet":
            hint = f" (from {_imagenet_url(section.arch)}, or set TORCH_HOME to its folder)"
        raise WeightsError(
            f"no weights at {path}: put the file there{hint}, give another path, or train from scratch with "
            'network.weights = "none"'
        )
    if section.weights == "imagenet":
        _check_digest(path)
    _load_body(network, _read_state(path), path)


def choose_device(device: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Return the device of a recipe; 'auto' is the GPU if torch finds one, and 'cuda' without one an error."""
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingError(
            'device = "cuda", but torch finds no GPU here: use device = "auto" or "cpu", or check the driver'
        )
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def _imagenet_url(arch: str) -> str:
    url: str = models.get_model_weights(arch)["IMAGENET1K_V1"].url
    return url


def _imagenet_file(arch: str) -> Path:
    if arch == "resnet10w32":
        raise WeightsError(
            "resnet10w32 does not have ImageNet weights: choose resnet18, resnet34 or resnet50, or "
            'network.weights = "none"'
        )
    return Path(torch.hub.get_dir()) / "checkpoints" / _imagenet_url(arch).rsplit("/", 1)[-1]


def _check_digest(path: Path) -> None:
    # torch.hub checks the digest of downloads, but not of existing files
    expected = path.stem.rsplit("-", 1)[-1]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(expected):
        raise WeightsError(
            f"SHA-256 of {path} begins with {digest[:8]}, expected {expected} from its name: the file is damaged or "
            "incomplete; download it again"
        )


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise WeightsError(
            f"{path} is not a readable file of weights ({str(error).splitlines()[0][:80]}): expected a state "
            "dictionary of tensors, as .pth or .safetensors"
        ) from error
    return state


def _load_body(network: GalaxyNetwork, state: dict[str, Tensor], path: Path) -> None:
    # galstore's files have the prefix "body.", torchvision's do not
    given = {name.removeprefix("body."): tensor for name, tensor in state.items()}
    current = network.body.state_dict()
    missing = [name for name in current if name not in given and not name.endswith("num_batches_tracked")]
    other_shape = [name for name in current if name in given and given[name].shape != current[name].shape]
    if missing or other_shape:
        raise WeightsError(
            f"{path} holds weights of another architecture ({len(missing)} tensors missing, {len(other_shape)} of "
            f"another shape, first {(missing + other_shape)[0]!r}): give the file that belongs to network.arch"
        )
    network.body.load_state_dict({name: given.get(name, current[name]) for name in current})


def _narrow_body() -> nn.Sequential:
    """Build a ResNet-10 of width 32 with torchvision's blocks, names and initialisation."""
    stem = nn.Conv2d(N_BANDS, 32, kernel_size=7, stride=2, padding=3, bias=False)
    modules: list[nn.Module] = [stem, nn.BatchNorm2d(32), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1)]
    width_in = 32
    for width, stride in ((32, 1), (64, 2), (128, 2), (256, 2)):
        shortcut = None
        if stride != 1:
            projection = nn.Conv2d(width_in, width, kernel_size=1, stride=stride, bias=False)
            shortcut = nn.Sequential(projection, nn.BatchNorm2d(width))
        modules.append(nn.Sequential(BasicBlock(width_in, width, stride, shortcut)))
        width_in = width
    body = nn.Sequential(OrderedDict(zip(BODY_PARTS, modules, strict=True)))
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return body


def split_gaussian(predicted: Tensor) -> tuple[Tensor, Tensor]:
    """Split the output of a network trained by `gaussian_loss` into means and log variances, (n, n_targets) each."""
    mean, log_variance = predicted.chunk(2, dim=1)
    return mean, log_variance.clamp(*LOG_VARIANCE_RANGE)
