"""Export of a model as one ONNX file, from counts to labels in their unit, for programs without torch.

Normalisation, views and label scale are part of the graph. The file is checked against the model with ONNX Runtime
before it is moved to its path.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from galstore.atomic_write import atomic_file
from modeling.loading.augmentation import N_VIEWS, dihedral
from modeling.models.model import Model, ModelConfig
from modeling.models.networks import split_gaussian
from modeling.scoring.predict import predict
from schemas.errors import ExportError

if TYPE_CHECKING:
    import onnx

INPUT = "pixels"
TOLERANCE = 1e-4
"""Maximum accepted difference in the unit of the label, or 1e-5 of the labels' scatter if larger, since float32 has
seven digits."""
N_CHECKED = 8
"""Number of test images of each kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxExport:
    """Written ONNX file and its agreement with the model."""

    path: Path
    bytes: int
    model_id: str
    views: int
    input_shape: tuple[str | int, ...]
    """Shape of the input `pixels`, float32 counts."""
    n_checked: int
    """Number of images used to compare file and model."""
    differences: dict[str, float]
    """Maximum difference between file and model by output, in its unit."""


class _CountsToLabels(nn.Module):
    """Graph from (object, y, x, band) float32 counts to one (object,) array per output, in its unit."""

    scale: Tensor
    offset: Tensor

    def __init__(self, model: Model, views: int) -> None:
        super().__init__()
        normalisation = model.config.normalisation
        mean = torch.tensor(normalisation.mean_counts, dtype=torch.float64)
        scale = 1 / torch.tensor(normalisation.std_counts, dtype=torch.float64)
        self.register_buffer("scale", scale.float())
        self.register_buffer("offset", (-mean * scale).float())
        self.network, self.config, self.views = model.network, model.config, views

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        images = (pixels * self.scale + self.offset).permute(0, 3, 1, 2)
        predicted: Tensor = self.network(torch.cat([dihedral(images, view) for view in range(self.views)]))
        mean = self._over_views(predicted)
        scales = self.config.label_scales
        labels = [mean[:, n] * scale.std + scale.mean for n, scale in enumerate(scales)]
        if self.config.gives_sigma:
            variance = torch.exp(split_gaussian(predicted)[1])
            labels.append(self._over_views(variance)[:, 0].sqrt() * scales[0].std)
        return tuple(labels)

    def _over_views(self, values: Tensor) -> Tensor:
        return values.reshape(self.views, -1, values.shape[1]).mean(dim=0)


def output_names(config: ModelConfig) -> tuple[str, ...]:
    """Return the output names: each target, and the sigma of the first target if the model predicts it."""
    return (*config.targets, f"{config.target}_sigma") if config.gives_sigma else config.targets


def export_onnx(model: Model, path: Path, *, views: Literal[1, 8] = 8) -> OnnxExport:
    """Write a model as one ONNX file after comparing the file with the model.

    With 8 views, the default of `galstore score`, outputs are means over D4, at eight times the cost. An existing file
    is replaced. The model's network is moved to the CPU.

    Returns
    -------
    OnnxExport
        The input `pixels` of the file is (object, y, x, band) float32 counts as in the cube (uint8 levels are cast),
        for any number of objects. Its outputs are `output_names`, each (object,) float32 in the unit of the label. The
        metadata has id, targets, bands, scale rule and training set.

    Raises
    ------
    ExportError
        A library is not installed, or file and model differ by more than the tolerance. An existing file is then
        unchanged.
    """
    if views not in (1, N_VIEWS):
        raise ValueError(f"views = {views}: give 8 (all of D4) or 1 (the unchanged image)")
    _require_libraries()
    import onnx

    config = model.config
    shape = (config.level, config.level, len(config.bands))
    model.network.cpu()
    with atomic_file(path) as draft:
        exported = _build_graph(_CountsToLabels(model, views), shape, output_names(config))
        for key, value in _metadata(config, views).items():
            exported.metadata_props.add(key=key, value=value)
        onnx.checker.check_model(exported)
        onnx.save_model(exported, draft)
        images = probe_images(config.level, len(config.bands))
        differences = compare_with_model(draft, model, images, views=views)
        _require_agreement(differences, config)
    return OnnxExport(
        path=path,
        bytes=path.stat().st_size,
        model_id=config.model_id,
        views=views,
        input_shape=("object", *shape),
        n_checked=len(images),
        differences=differences,
    )


def compare_with_model(
    path: Path, model: Model, pixels: NDArray[np.float32], *, views: Literal[1, 8]
) -> dict[str, float]:
    """Return the maximum difference between an ONNX file and a model by output; NaN if either is NaN.

    The model is evaluated by `modeling.scoring.predict`, which shares no code with the graph for normalisation, views
    and label scale.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = output_names(model.config)
    # a single image, then the rest: the number of objects is variable
    parts = [session.run(names, {INPUT: part}) for part in (pixels[:1], pixels[1:])]
    predicted = predict(model, pixels, views=views, device="cpu")
    expected = [predicted.mean, *(predicted.further[name] for name in model.config.targets[1:]), predicted.sigma]
    return {
        name: float(np.abs(np.concatenate(found) - wanted).max())
        for name, *found, wanted in zip(names, *parts, expected, strict=False)
    }


def probe_images(side_px: int, n_bands: int) -> NDArray[np.float32]:
    """Draw test images: noise, galaxies, an empty image and a saturated image.

    They are (2 N_CHECKED + 2, y, x, band) float32, integer counts from 0 to 255. Galaxies are exponential disks of
    random size, axis ratio and colour on a noisy sky.
    """
    rng = np.random.default_rng(0)
    noise = rng.uniform(0, 255, (N_CHECKED, side_px, side_px, n_bands))
    y, x = (np.mgrid[:side_px, :side_px] + 0.5) / side_px - 0.5
    ranges = ((0, np.pi), (0.3, 1), (0.05, 0.2))
    angle, axis_ratio, radius = (rng.uniform(low, high, (N_CHECKED, 1, 1)) for low, high in ranges)
    along, across = x * np.cos(angle) + y * np.sin(angle), (y * np.cos(angle) - x * np.sin(angle)) / axis_ratio
    brightness = rng.uniform(60, 250, (N_CHECKED, 1, 1, n_bands))
    galaxies = brightness * np.exp(-np.hypot(along, across) / radius)[..., None] + rng.normal(8, 3, noise.shape)
    flat = np.broadcast_to(np.array([0.0, 255.0])[:, None, None, None], (2, *noise.shape[1:]))
    return np.concatenate([noise, galaxies, flat]).round().clip(0, 255).astype(np.float32)


def _build_graph(module: nn.Module, shape: tuple[int, int, int], outputs: tuple[str, ...]) -> onnx.ModelProto:
    program = torch.onnx.export(
        module.eval(),
        # not one object: torch treats a length of one as constant
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
        # NaN fails too
        if not differences[name] <= tolerance:
            raise ExportError(
                f"ONNX file and model {config.model_id} differ by {differences[name]:.2g} in {name}, "
                f"expected at most {tolerance:.2g}: no file was written; try other versions of torch and onnxruntime"
            )


def _metadata(config: ModelConfig, views: int) -> dict[str, str]:
    # half-widths of the intervals, in units of sigma if `by_sigma`
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


def _require_libraries() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401 - compares the file with the model
        import onnxscript  # noqa: F401 - used by torch's exporter
    except ImportError as error:
        raise ExportError(
            f"an ONNX export needs the library {error.name}, which is not installed: pip install 'galstore[onnx]'"
        ) from error
