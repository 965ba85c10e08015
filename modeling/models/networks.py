"""Networks: residual networks with the paper's head, and the ImageNet weights that they may start from."""

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
"""torchvision's names of what stands before a ResNet's pooling, in the order in which they are applied."""

LOG_VARIANCE_RANGE = (-6.0, 6.0)
"""A predicted sigma stays between 5 % and 20 times the scatter of the label: beyond, one batch can undo the rest."""


class ConcatPool(nn.Module):
    """Average and maximum over y and x, side by side: (n, c, y, x) -> (n, 2c), in float32."""

    def forward(self, features: Tensor) -> Tensor:
        features = features.float()
        return torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)


class GalaxyNetwork(nn.Module):
    """A convolutional body and a regression head.

    The body may run in bfloat16 under autocast; pooling and head always run in float32, since a bfloat16 step at a
    metallicity of 8.7 is 0.06 dex, as much as the error that is to be measured.

    Parameters
    ----------
    body
        (n, band, y, x) -> (n, `n_features`, y', x').
    n_features
        Channels that the body returns.
    dropout
        Dropout before the first and before the second linear layer.
    n_targets
        Values predicted for each object.
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
        """Standardised labels of normalised images: (n, band, y, x) -> (n, n_targets), float32."""
        return self.predict_and_pool(images)[0]

    def predict_and_pool(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and the body's features averaged over each image: (n, n_features), float32."""
        features = self.body(images)
        with torch.autocast(device_type=features.device.type, enabled=False):
            features = features.float()
            predicted: Tensor = self.head(features)
        return predicted, features.mean(dim=(2, 3))


def build_network(section: NetworkSection, *, n_targets: int = 1) -> GalaxyNetwork:
    """The network that a recipe describes, with random weights.

    Random weights are drawn from torch's generator of the CPU: seed it (`torch.manual_seed`) inside
    `torch.random.fork_rng()` for a reproducible start, as `train_network` does.

    Parameters
    ----------
    section
        `arch` is torchvision's resnet18, resnet34 (the paper's) or resnet50, or `resnet10w32`: one basic block a stage
        and half the width, 1.4 million parameters, for two cores. Each takes images of every level from 128 to 1 px.
    n_targets
        Values predicted for each object.

    Returns
    -------
    GalaxyNetwork
        Takes (n, band, y, x) float32 and returns (n, n_targets). Head as in Wu & Boada (2019), section 3.2: average and
        maximum pooling, then batch normalisation, dropout and a linear layer, twice.
    """
    if section.arch == "resnet10w32":
        body, n_features = _narrow_body(), 256
    else:
        resnet = models.get_model(section.arch, weights=None)
        body, n_features = _parts(resnet), resnet.fc.in_features
    return GalaxyNetwork(body, n_features=n_features, dropout=section.dropout, n_targets=n_targets)


def load_pretrained_weights(network: GalaxyNetwork, section: NetworkSection) -> None:
    """Give the body of a network the weights that its recipe names; the head keeps its own.

    Parameters
    ----------
    network
        Changed in place.
    section
        `weights` is 'none' (nothing happens), 'imagenet' (torchvision's IMAGENET1K_V1 file of this architecture under
        `$TORCH_HOME/hub/checkpoints`, never downloaded from here), or the path of a torchvision state dictionary or
        of a `model.safetensors` of galstore.

    Raises
    ------
    WeightsError
        No such file, not the bytes that its name promises, or weights of another architecture.
    """
    if section.weights == "none":
        return
    path = _imagenet_file(section.arch) if section.weights == "imagenet" else Path(section.weights)
    if not path.is_file():
        raise WeightsError(
            f"no weights at {path}: put the file there{_where_from(section)}, give another path, or train from scratch "
            'with network.weights = "none"'
        )
    if section.weights == "imagenet":
        _check_digest(path)
    _load_body(network, _read_state(path), path)


def choose_device(device: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device that a recipe means; 'auto' is the GPU where there is one.

    Raises
    ------
    TrainingError
        'cuda' on a machine without a GPU that torch can use.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingError(
            'device = "cuda", but torch finds no GPU here: use device = "auto" or "cpu", or check the driver'
        )
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def _where_from(section: NetworkSection) -> str:
    if section.weights != "imagenet":
        return ""
    return f" (from {models.get_model_weights(section.arch)['IMAGENET1K_V1'].url}, or set TORCH_HOME to where it is)"


def _imagenet_file(arch: str) -> Path:
    if arch == "resnet10w32":
        raise WeightsError(
            "there are no ImageNet weights of resnet10w32: choose resnet18, resnet34 or resnet50, or "
            'network.weights = "none"'
        )
    url: str = models.get_model_weights(arch)["IMAGENET1K_V1"].url
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]


def _check_digest(path: Path) -> None:
    # torch.hub checks the digest of what it downloads, never that of a file which is already there
    promised = path.stem.rsplit("-", 1)[-1]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(promised):
        raise WeightsError(
            f"{path} is not the file its name promises: SHA-256 begins {digest[:8]}, expected {promised}. It is "
            "damaged or cut short: fetch it again"
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
    # torchvision's names stand alone; galstore's own files have the body's under "body."
    theirs = {name.removeprefix("body."): tensor for name, tensor in state.items()}
    ours = network.body.state_dict()
    missing = [name for name in ours if name not in theirs and not name.endswith("num_batches_tracked")]
    other_shape = [name for name in ours if name in theirs and theirs[name].shape != ours[name].shape]
    if missing or other_shape:
        wrong = (missing + other_shape)[0]
        raise WeightsError(
            f"{path} holds weights of another architecture ({len(missing)} tensors missing, {len(other_shape)} of "
            f"another shape, first {wrong!r}): give the file that belongs to network.arch"
        )
    network.body.load_state_dict({name: theirs.get(name, ours[name]) for name in ours})


def _parts(resnet: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict((name, getattr(resnet, name)) for name in BODY_PARTS))


def _narrow_body() -> nn.Sequential:
    """ResNet-10 of width 32, with torchvision's blocks, names and initialisation."""
    stem = nn.Conv2d(N_BANDS, 32, kernel_size=7, stride=2, padding=3, bias=False)
    modules: list[nn.Module] = [stem, nn.BatchNorm2d(32), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1)]
    width_in = 32
    for width, stride in ((32, 1), (64, 2), (128, 2), (256, 2)):
        shortcut = None
        if stride != 1:
            shortcut = nn.Sequential(
                nn.Conv2d(width_in, width, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(width)
            )
        modules.append(nn.Sequential(BasicBlock(width_in, width, stride, shortcut)))
        width_in = width
    body = nn.Sequential(OrderedDict(zip(BODY_PARTS, modules, strict=True)))
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return body


def split_gaussian(predicted: Tensor) -> tuple[Tensor, Tensor]:
    """Means and logarithms of variances, (n, n_targets) each, of a network that was trained by `gaussian_loss`."""
    mean, log_variance = predicted.chunk(2, dim=1)
    return mean, log_variance.clamp(*LOG_VARIANCE_RANGE)
