"""Export of a model as ONNX: one file from counts to the label in its unit, for programs without torch.

The normalisation, the views and the label's scale are part of the graph. The file is compared with the model by ONNX
Runtime before it gets its name; one that does not agree is never left behind.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modeling.loading.augment import N_VIEWS, dihedral
from modeling.models.model import Model, ModelConfig
from modeling.models.networks import split_gaussian
from modeling.scoring.predict import predict
from schemas.errors import ExportError

INPUT = "pixels"

TOLERANCE = 1e-4
"""Largest difference that is accepted, in the unit of the label; 1e-5 of the labels' scatter where that is more, since
float32 carries seven digits of a label in the hundreds."""

N_CHECKED = 8
"""Images of each kind that file and model are compared on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxExport:
    """A file that was written, and how well it agrees with the model."""

    path: Path
    bytes: int
    model_id: str
    views: int
    input_shape: tuple[str | int, ...]
    """Axes of the input `pixels`, float32 counts."""
    n_checked: int
    """Images that file and model were compared on."""
    differences: dict[str, float]
    """Largest one between file and model, by output, in its unit."""


class _CountsToLabels(nn.Module):
    """(object, y, x, band) float32 counts -> (object,) for each output, in its unit."""

    scale: Tensor
    offset: Tensor

    def __init__(self, model: Model, views: int) -> None:
        super().__init__()
        normalisation = model.config.normalisation
        mean = torch.tensor(normalisation.mean_counts, dtype=torch.float64)
        scale = 1 / torch.tensor(normalisation.std_counts, dtype=torch.float64)
        self.register_buffer("scale", scale.float())
        self.register_buffer("offset", (-mean * scale).float())
        self.network = model.network
        self.config = model.config
        self.views = views

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        images = (pixels * self.scale + self.offset).permute(0, 3, 1, 2)
        predicted: Tensor = self.network(torch.cat([dihedral(images, view) for view in range(self.views)]))
        mean = self._over_views(predicted)
        scales = self.config.label_scales
        labels = [mean[:, n] * one.std + one.mean for n, one in enumerate(scales)]
        if self.config.gives_sigma:
            variance = torch.exp(split_gaussian(predicted)[1])
            labels.append(self._over_views(variance)[:, 0].sqrt() * scales[0].std)
        return tuple(labels)

    def _over_views(self, values: Tensor) -> Tensor:
        return values.reshape(self.views, -1, values.shape[1]).mean(dim=0)


def output_names(config: ModelConfig) -> tuple[str, ...]:
    """Outputs of an exported model: a label for each target, and the sigma of the first if the model predicts one."""
    return (*config.targets, f"{config.target}_sigma") if config.gives_sigma else config.targets


def export_onnx(model: Model, path: Path, *, views: Literal[1, 8] = 8) -> OnnxExport:
    """Write a model as one ONNX file, after it was seen to agree with the model.

    Parameters
    ----------
    model
        A loaded model; its network is left on the CPU.
    path
        Of the file; one that is there is replaced.
    views
        8: the mean over all of D4, as `galstore score` takes it, at eight times the work. 1: the image as it is.

    Returns
    -------
    OnnxExport
        The file's input `pixels` is (object, y, x, band) float32 counts as the cube has them (uint8 levels are cast),
        with any number of objects; its outputs are those of `output_names`, (object,) float32 in the unit of the
        label each. Id, targets, bands, scale rule and training set stand in the file's metadata.

    Raises
    ------
    ExportError
        A library is not installed, or file and model differ by more than the tolerance; then no file is written, and
        one that was there stays.
    """
    if views not in (1, N_VIEWS):
        raise ValueError(f"views = {views}: give 8 (all of D4) or 1 (the image as it is)")
    onnx = _require_libraries()
    config = model.config
    shape = (config.level, config.level, len(config.bands))
    model.network.cpu()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        exported = _build_graph(_CountsToLabels(model, views), shape, output_names(config))
        for key, value in _describe(config, views).items():
            exported.metadata_props.add(key=key, value=value)
        onnx.checker.check_model(exported)
        onnx.save_model(exported, draft)
        images = probe_images(config.level, len(config.bands))
        differences = compare_with_model(draft, model, images, views=views)
        _require_agreement(differences, config)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return OnnxExport(
        path=path, bytes=path.stat().st_size, model_id=config.model_id, views=views, input_shape=("object", *shape),
        n_checked=len(images), differences=differences,
    )  # fmt: skip


def compare_with_model(
    path: Path, model: Model, pixels: NDArray[np.float32], *, views: Literal[1, 8]
) -> dict[str, float]:
    """Largest difference between an ONNX file and a model over some images, by output; NaN where either is NaN.

    The model answers through `modeling.scoring.predict`, which normalises, turns and restores by other code than the graph's.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = output_names(model.config)
    # one image alone, then the rest: the number of objects is free
    parts = [session.run(names, {INPUT: part}) for part in (pixels[:1], pixels[1:])]
    predicted = predict(model, pixels, views=views, device="cpu")
    expected = [predicted.mean, *(predicted.further[name] for name in model.config.targets[1:]), predicted.sigma]
    return {
        name: float(np.abs(np.concatenate(ours) - theirs).max())
        for name, *ours, theirs in zip(names, *parts, expected, strict=False)
    }


def probe_images(side_px: int, n_bands: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Images to compare by: noise, galaxies, an empty sky and a saturated one.

    Parameters
    ----------
    side_px, n_bands
        Of each image.
    seed
        Of the draws.

    Returns
    -------
    ndarray
        (2 N_CHECKED + 2, y, x, band) float32, whole counts from 0 to 255. Galaxies are exponential disks of random
        size, tilt and colour over the noise of a sky.
    """
    rng = np.random.default_rng(seed)
    noise = rng.uniform(0, 255, (N_CHECKED, side_px, side_px, n_bands))
    y, x = (np.mgrid[:side_px, :side_px] + 0.5) / side_px - 0.5
    angle, axis_ratio, radius = (
        rng.uniform(low, high, (N_CHECKED, 1, 1)) for low, high in ((0, np.pi), (0.3, 1), (0.05, 0.2))
    )
    along, across = x * np.cos(angle) + y * np.sin(angle), (y * np.cos(angle) - x * np.sin(angle)) / axis_ratio
    brightness = rng.uniform(60, 250, (N_CHECKED, 1, 1, n_bands))
    galaxies = brightness * np.exp(-np.hypot(along, across) / radius)[..., None] + rng.normal(8, 3, noise.shape)
    flat = np.broadcast_to(np.array([0.0, 255.0])[:, None, None, None], (2, *noise.shape[1:]))
    return np.concatenate([noise, galaxies, flat]).round().clip(0, 255).astype(np.float32)


def _build_graph(module: nn.Module, shape: tuple[int, int, int], outputs: tuple[str, ...]) -> Any:
    """The module as an ONNX model whose number of objects is free."""
    program = torch.onnx.export(
        module.eval(),
        # not one object: torch takes a length of one for a constant
        (torch.zeros((2, *shape)),),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("object")},),
        input_names=[INPUT],
        output_names=outputs,
        verbose=False,
    )
    if program is None:
        raise ExportError("torch's exporter returned nothing: use another version of torch")
    return program.model_proto


def _require_agreement(differences: Mapping[str, float], config: ModelConfig) -> None:
    for name, scale in zip(differences, (*config.label_scales, config.label_scale), strict=False):
        tolerance = max(TOLERANCE, 0.1 * TOLERANCE * scale.std)
        # written so that NaN fails too
        if not differences[name] <= tolerance:
            raise ExportError(
                f"the ONNX file of model {config.model_id} differs from it by {differences[name]:.2g} in {name}, "
                f"expected at most {tolerance:.2g}: no file was written; try other versions of torch and onnxruntime"
            )


def _describe(config: ModelConfig, views: int) -> dict[str, str]:
    """What a user of the file has to know, as its metadata."""
    # half-widths of the intervals around the label, times its sigma where `by_sigma` says so
    calibration = {} if config.calibration is None else {"calibration": json.dumps(asdict(config.calibration))}
    return {
        "model_id": config.model_id,
        "input": f"{INPUT}: float32 counts 0-255, (object, y, x, band), {config.level} px",
        "outputs": f"{', '.join(output_names(config))}: (object,), in the unit of the label, mean over {views} views",
        "bands": ",".join(config.bands),
        "scale_rule": config.scale_rule,
        "scale_arcsec": f"{config.scale_arcsec:g}",
        "training_set": config.training_set,
        "snapshot": config.snapshot,
        **calibration,
    }


def _require_libraries() -> Any:
    try:
        import onnx
        import onnxruntime  # noqa: F401 - used where the file is compared
        import onnxscript  # noqa: F401 - used by torch's exporter
    except ImportError as error:
        raise ExportError(
            f"an ONNX export needs the library {error.name}, which is not installed: pip install 'galstore[onnx]'"
        ) from error
    return onnx
