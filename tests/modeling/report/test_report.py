from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from modeling.evaluation.metrics import Regression
from modeling.models.training_log import EpochRecord
from modeling.report.model_page import (
    FOREST,
    MEAN,
    NETWORK,
    ORACLE,
    Evaluation,
    ModelPage,
    ModelProvenance,
    NewCatalog,
    verdict,
    write_model_page,
)
from modeling.report.pages import NAVIGATION, Heading, IngestCounts
from schemas.errors import ContractError
from tests.facts import facts_near

RNG = np.random.default_rng(0)
N = 60
TRUE = RNG.normal(8.9, 0.2, N)
PREDICTED = TRUE + RNG.normal(0, 0.08, N)


class Page(HTMLParser):
    """Start tags with their attributes, and the text of the page, of table rows and of each class."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self._elements, self._inside = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "meta"):
            self.open.append(tag)
            self._inside.append((tag, dict(attrs).get("class"), []))
            self._elements.append(self._inside[-1])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self._inside.pop()

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text.append(data)
            for _, _, text in self._inside:
                text.append(data)

    def words(self):
        return _joined(self.text)

    def rows(self):
        """Text of each row of a table."""
        return [_joined(text) for tag, _, text in self._elements if tag == "tr"]

    def of_class(self, name):
        """Text of each element of a class."""
        return [_joined(text) for _, element_class, text in self._elements if element_class == name]


def _joined(text):
    return " ".join(" ".join(text).split())


def regression(rmse, nmad=0.07):
    return Regression(n=N, rmse=rmse, nmad=nmad, bias=-0.001, r2=0.8)


class Cutouts:
    def __init__(self):
        self.requests = []

    def __call__(self, rows):
        self.requests.append(rows)
        return np.zeros((len(rows), 128, 128, 3), np.uint8)


def report(**changes):
    settings = {
        "heading": Heading(title="Demo <1>", survey="Simulated SDSS", simulated=True, model_id="0123456789ab"),
        "ingest": IngestCounts(
            registered=5120,
            stored=5031,
            quarantined=88,
            pending=1,
            quarantined_by_reason={"out_of_footprint": 88},
            rejected_by_reason={"duplicate object id": 12},
        ),
        "splits": {"train": 2700, "validation": 900, "test": 911},
        "target": "12 + log(O/H)",
        "evaluation": Evaluation(
            split="test", object_id=np.arange(N), true=TRUE, predicted=PREDICTED, read_cutouts=Cutouts()
        ),
        "predictors": {
            NETWORK: regression(0.08),
            MEAN: regression(0.2, 0.17),
            FOREST: regression(0.125),
            ORACLE: regression(0.06),
        },
        "training_log": (
            EpochRecord(epoch=1, seconds=1, images_per_s=9, train_loss=1, rmse=0.1, nmad=0.08, learning_rate=0.01),
        ),
        "best_epoch": 1,
        "provenance": ModelProvenance(
            model_id="0123456789ab",
            training_set="a1b2",
            snapshot="SNAP",
            versions={"torch": "2.15.0"},
            recipe='name = "demo & more"',
        ),
        "new_catalog": NewCatalog(n=2, n_scored=1),
    }
    return ModelPage(**(settings | changes))


def page_of(tmp_path, **changes):
    write_model_page(tmp_path / "reports" / "report.html", report(**changes))
    return Page((tmp_path / "reports" / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return page_of(tmp_path_factory.mktemp("report"))


def test_the_page_loads_nothing_and_describes_its_images(page):
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 5
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)
    assert all(len(image["alt"]) > 40 for image in images)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object"}
    assert {attributes["href"] for _, attributes in page.tags if "href" in attributes} == set(NAVIGATION)
    assert page.open == []


def test_the_verdict_compares_with_the_mean_the_forest_and_the_oracle():
    text = verdict(report())
    for facts in (
        ("60", "test galaxies", "network", "12 + log(O/H)"),
        ("RMSE", "0.0800 dex"),
        ("NMAD", "0.0700 dex"),
        ("60 %", "better", "mean", "0.2000"),
        ("36 %", "better", "forest", "0.1250"),
        ("0.0600 dex", "0.0200 dex"),
    ):
        assert facts_near(text, *facts), facts


def test_a_network_that_loses_is_called_worse():
    predictors = {NETWORK: regression(0.3), MEAN: regression(0.2)}
    text = verdict(report(predictors=predictors))
    assert facts_near(text, "50 %", "worse", "mean", "0.2000")
    assert "better" not in text


def test_the_verdict_comes_before_every_other_section(page):
    assert page.of_class("verdict") == [verdict(report())]
    parts = [tag for tag, attributes in page.tags if tag == "h2" or attributes.get("class") == "verdict"]
    assert parts[0] != "h2"
    assert "h2" in parts


def test_a_simulated_sky_has_a_warning(page):
    (warning,) = page.of_class("simulated")
    assert "simulated" in warning.lower()


def test_a_real_sky_without_magnitudes_omits_the_forest_with_a_reason(tmp_path):
    reason = "not fitted: the training rows have no values of modelMag_g"
    predictors = {NETWORK: regression(0.08), MEAN: regression(0.2), FOREST: reason}
    heading = Heading(title="Demo", survey="SDSS", simulated=False, model_id="0123456789ab")
    page = page_of(tmp_path, heading=heading, predictors=predictors)
    words = page.words()
    assert page.of_class("simulated") == []
    assert reason in words
    assert facts_near(words, "better", "mean", "0.2000")
    assert "36 %" not in words


def test_counts_reasons_and_provenance_are_there(page):
    words = page.words()
    for expected in (
        ("5,120", "registered"),
        ("5,031", "stored"),
        ("88", "quarantined"),
        ("1", "pending"),
        ("out of footprint", "88"),
        ("duplicate object id", "12"),
        ("2,700", "train"),
        ("1 of 2", "prediction"),
        ("SNAP", "snapshot"),
        ('name = "demo & more"',),
        ("Demo <1>",),
    ):
        assert facts_near(words, *expected, within=40), expected


def test_only_the_cutouts_of_the_gallery_are_read(tmp_path):
    shown = report()
    write_model_page(tmp_path / "report.html", shown)
    (rows,) = shown.evaluation.read_cutouts.requests
    assert len(rows) <= 35
    assert np.all(np.diff(rows) > 0)


def test_log_and_new_catalog_are_optional_and_validation_galaxies_are_pointed_out(tmp_path):
    evaluation = replace(report().evaluation, split="validation")
    page = page_of(tmp_path, training_log=(), new_catalog=None, evaluation=evaluation)
    assert "new catalog" not in page.words().lower()
    assert facts_near(page.words(), "validation", "epoch")
    assert sum(tag == "img" for tag, _ in page.tags) == 4


def test_a_report_without_the_network_is_refused(tmp_path):
    with pytest.raises(ContractError, match=r"(?=.*\bpredictors\b)(?=.*'network')(?=.*\bNone\b)"):
        write_model_page(tmp_path / "report.html", report(predictors={MEAN: regression(0.2)}))
    assert list(tmp_path.iterdir()) == []


def test_columns_of_different_length_are_refused():
    with pytest.raises(ValueError, match=r"\[59, 60\]"):
        replace(report().evaluation, true=TRUE[1:])
