from __future__ import annotations

from pathlib import Path

import pytest

from flows.runtime import load_recipe, recipe_names
from schemas.errors import RecipeError
from schemas.recipes import EmulatorSection, parse_recipe

MINIMAL = """
name = "mine"
[store]
path = "cube"
[output]
folder = "out"
[survey]
name = "sdss"
base_url = "https://example.org"
"""


def test_a_minimal_recipe_gets_the_papers_defaults() -> None:
    recipe = parse_recipe(MINIMAL, origin="mine.toml")
    assert recipe.network.arch == "resnet34"
    assert recipe.network.level == 128
    assert recipe.cutouts.scale.arcsec_per_px == 0.296
    assert (recipe.split.train, recipe.split.validation, recipe.split.test) == (0.6, 0.2, 0.2)


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_is_valid(name: str) -> None:
    assert load_recipe(name).name == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nepoch = 3\n", r"(?=.*'train\.epoch')(?=.*'epochs')"),
        ("[trian]\nepochs = 3\n", r"(?=.*'trian')(?=.*'train')"),
        ("[emulator.faults]\ntruncate = 0.1\n", r"(?=.*'emulator\.faults\.truncate')(?=.*'truncated')"),
        ("[network]\nlevel = 100\n", r"(?=.*\bnetwork\b)(?=.*level 100\b)(?=.*\b128, 64, 32\b)"),
        ("[network]\narch = 'resnet35'\n", r"(?=.*network\.arch)(?=.*'resnet18')"),
        ("[split]\ntrain = 0.9\n", r"(?=.*\bsplit\b)(?=.*\b1\.3\b)"),
        ("[emulator]\nseed = 1\n", r"(?=.*\bemulator\b)(?=.*n_galaxies)(?=.*\bcatalog\b)(?=.*\bcutouts\b)"),
        ("[dask\n", r"(?=.*mine\.toml)(?=.*TOML)"),
    ],
)
def test_a_bad_recipe_names_the_key(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe(MINIMAL + text, origin="mine.toml")


def test_overrides_are_toml_values_or_plain_strings() -> None:
    overrides = ["survey.limit=7", "store.path=elsewhere/cube", "network.dropout=[0.1, 0.2]", "train.device='cpu'"]
    recipe = parse_recipe(MINIMAL, origin="mine.toml", overrides=overrides)
    assert recipe.survey.limit == 7
    assert recipe.store.path == "elsewhere/cube"
    assert recipe.network.dropout == (0.1, 0.2)
    assert recipe.train.device == "cpu"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("survey.limit", r"(?=.*'survey\.limit')(?=.*section\.key=value)"),
        ("name.first=1", r"(?=.*'name\.first')(?=.*\bsection\b)"),
        ("survey.limits=1", r"(?=.*'survey\.limits')(?=.*'limit')"),
    ],
)
def test_a_bad_override_says_what_is_wrong(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe(MINIMAL, origin="mine.toml", overrides=[override])


def test_values_are_set_by_dotted_key() -> None:
    recipe = parse_recipe(MINIMAL, origin="mine.toml")
    catalog = Path('it\'s "new".csv')
    emulator = EmulatorSection(catalog=catalog, cutouts=Path("jpegs"))
    changed = recipe.with_values(
        {"score.catalog": catalog, "survey.limit": 7, "survey.base_url": "emulator", "emulator": emulator}
    )
    assert changed.score.catalog == catalog
    assert changed.survey.limit == 7
    assert changed.emulator == emulator
    assert recipe.survey.limit == 0
    # keys that the recipe leaves out remain unset
    assert changed.model_dump(exclude_unset=True)["survey"] == {"name": "sdss", "base_url": "emulator", "limit": 7}
    assert changed.with_values({"emulator.faults.truncated": 0.5}).emulator.faults.truncated == 0.5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"survey.limits": 1}, r"(?=.*\bmine\b)(?=.*'survey\.limits')(?=.*'limit')"),
        ({"survey.limit": -1}, r"(?=.*\bmine\b)(?=.*survey\.limit\b)"),
        ({"name.first": 1}, r"(?=.*'name\.first')(?=.*\bsection\b)"),
    ],
)
def test_a_bad_value_names_its_key(values: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe(MINIMAL, origin="mine.toml").with_values(values)


def test_emulator_needs_its_section() -> None:
    with pytest.raises(RecipeError, match=r"(?=.*survey\.base_url)(?=.*'emulator')(?=.*\[emulator\])"):
        parse_recipe(MINIMAL, origin="mine.toml", overrides=["survey.base_url=emulator"])


def test_only_galaxies_drawn_by_the_emulator_are_a_simulated_sky() -> None:
    assert load_recipe("demo").sky_is_simulated
    assert not load_recipe("sdss_demo").sky_is_simulated
    assert not load_recipe("demo", ["survey.base_url=http://127.0.0.1:8000"]).sky_is_simulated


def test_the_error_of_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"(?=.*'dmeo')(?=.*\bdemo, legacy, sdss, sdss_demo\b)"):
        load_recipe("dmeo")
    with pytest.raises(RecipeError, match=r"\bmissing\.toml\b"):
        load_recipe("missing.toml")
