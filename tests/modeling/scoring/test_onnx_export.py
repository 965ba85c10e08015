import json
import sys

import numpy as np
import pytest

from modeling.evaluation.intervals import ConformalIntervals
from modeling.scoring import onnx_export
from modeling.scoring.onnx_export import export_onnx, output_names, probe_images
from modeling.scoring.predict import predict
from schemas.errors import ExportError
from schemas.recipes import TrainSection
from tests.facts import facts_near
from tests.support.random_models import random_model

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

MANY = TrainSection(further_targets=("lgm_tot_p50",), loss="gaussian")


def run_file(path, pixels):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"pixels": pixels}), strict=True))


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    model = random_model("0123456789ab", train=MANY, label_std=0.3)
    model = model.with_intervals(ConformalIntervals(n=99, by_sigma=True, score_68=1.1, score_95=2.2))
    path = tmp_path_factory.mktemp("onnx") / "deep" / "model.onnx"
    return model, export_onnx(model, path)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_labels_agree_for_any_number_of_images(exported, draw_discs, n):
    model, done = exported
    pixels, _ = draw_discs(n, 3)
    found, expected = run_file(done.path, pixels), predict(model, pixels, device="cpu")
    assert list(found) == ["oh_p50", "lgm_tot_p50", "oh_p50_sigma"]
    for name, values in zip(found, (expected.mean, expected.further["lgm_tot_p50"], expected.sigma), strict=True):
        assert found[name].shape == (n,)
        np.testing.assert_allclose(found[name], values, atol=1e-4)
    # random weights distinguish images: the labels are not constant
    assert n == 1 or np.ptp(found["oh_p50"]) > 1e-3


def test_uint8_counts_are_only_cast(exported, draw_discs):
    model, done = exported
    counts = draw_discs(4, 4)[0].astype(np.uint8)
    labels = run_file(done.path, counts.astype(np.float32))["oh_p50"]
    np.testing.assert_allclose(labels, predict(model, counts, device="cpu").mean, atol=1e-4)


def test_the_file_is_complete_and_has_metadata(exported):
    _, done = exported
    assert [path.name for path in done.path.parent.iterdir()] == ["model.onnx"]
    assert done.bytes == done.path.stat().st_size
    assert done.input_shape == ("object", 16, 16, 3)
    assert set(done.differences) == {"oh_p50", "lgm_tot_p50", "oh_p50_sigma"}
    assert max(done.differences.values()) < 1e-4
    file = onnx.load(done.path)
    onnx.checker.check_model(file, full_check=True)
    metadata = {entry.key: entry.value for entry in file.metadata_props}
    assert metadata["model_id"] == "0123456789ab"
    assert metadata["scale_rule"] == "fixed"
    assert facts_near(metadata["input"], "(object, y, x, band)", "0-255", "16 px")
    assert json.loads(metadata["calibration"]) == {"n": 99, "by_sigma": True, "score_68": 1.1, "score_95": 2.2}
    assert facts_near(metadata["outputs"], "8 views", "mean")
    (given,) = file.graph.input
    assert [axis.dim_param or axis.dim_value for axis in given.type.tensor_type.shape.dim] == ["object", 16, 16, 3]


def test_one_view_is_the_unchanged_image(tmp_path, draw_discs):
    model = random_model("0123456789ab", level=32, seed=5)
    done = export_onnx(model, tmp_path / "m.onnx", views=1)
    pixels = np.repeat(np.repeat(draw_discs(3, 6)[0], 2, axis=1), 2, axis=2)
    labels = run_file(done.path, pixels)["oh_p50"]
    np.testing.assert_allclose(labels, predict(model, pixels, views=1, device="cpu").mean, atol=1e-4)
    assert np.abs(labels - predict(model, pixels, views=8, device="cpu").mean).max() > 1e-4


def test_a_file_that_disagrees_is_not_written(exported, tmp_path, monkeypatch):
    _, done = exported
    path = tmp_path / "m.onnx"
    path.write_bytes(b"the older file")
    # the graph of another model, as from a faulty exporter
    graph = onnx.load(done.path)
    del graph.metadata_props[:]
    monkeypatch.setattr(onnx_export, "_build_graph", lambda *_: graph)
    with pytest.raises(ExportError, match=r"(?=.*\b0123456789ab\b)(?=.*\boh_p50\b)(?=.*\b0\.0001\b)"):
        export_onnx(random_model("0123456789ab", train=MANY, seed=1), path)
    assert path.read_bytes() == b"the older file"
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_nan_is_a_disagreement():
    config = random_model("0123456789ab").config
    assert output_names(config) == ("oh_p50",)
    with pytest.raises(ExportError, match=r"(?=.*\boh_p50\b)(?=.*\bnan\b)"):
        onnx_export._require_agreement({"oh_p50": float("nan")}, config)


def test_the_tolerance_follows_the_scatter_of_the_labels():
    config = random_model("0123456789ab", label_std=150.0).config
    onnx_export._require_agreement({"oh_p50": 0.0014}, config)
    with pytest.raises(ExportError, match=r"\b0\.0015\b"):
        onnx_export._require_agreement({"oh_p50": 0.0016}, config)


def test_probe_images_are_counts_of_every_kind():
    images = probe_images(16, 3)
    assert images.shape == (18, 16, 16, 3)
    assert images.dtype == np.float32
    assert np.array_equal(images, images.round())
    assert images.min() == 0
    assert images.max() == 255
    # galaxies stand out of their sky
    galaxies = images[8:16].mean(axis=3)
    assert (galaxies[:, 7:9, 7:9].mean(axis=(1, 2)) > galaxies[:, 0].mean(axis=1) + 20).all()
    assert np.array_equal(images, probe_images(16, 3))


@pytest.mark.parametrize("library", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_library_names_the_extra(tmp_path, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ExportError, match=rf"(?=.*\b{library}\b[^\]])(?=.*pip install 'galstore\[onnx\]')"):
        export_onnx(random_model("0123456789ab"), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_other_numbers_of_views_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"(?=.*\bviews\b.*\b4\b)(?=.*\b8\b)"):
        export_onnx(random_model("0123456789ab"), tmp_path / "m.onnx", views=4)
