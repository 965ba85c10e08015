import numpy as np
import pandas as pd
import pytest

from galstore.emulator.sky.simulated import MAX_GALAXIES, SimulatedSky
from schemas.errors import ContractError
from schemas.selection import QUERY_COLUMNS


@pytest.fixture(scope="module")
def sky() -> SimulatedSky:
    return SimulatedSky(seed=11, n_galaxies=20_000, n_new=100)


@pytest.fixture(scope="module")
def labelled(sky: SimulatedSky) -> pd.DataFrame:
    """Apply the selection of the paper, written with pandas instead of SQL."""
    table = sky.catalog()
    colour = table["modelMag_u"] - table["modelMag_r"]
    is_selected = (
        table["petroMag_r"].between(10, 18, inclusive="neither")
        & colour.between(0, 6, inclusive="neither")
        & (table["rChi2"] < 2)
        & table["zErr"].between(0, 0.01, inclusive="neither")
        & (table["z"] > 0.02)
        & (table["oh_p50"] != -9999)
    )
    for band in "ugriz":
        is_selected &= table[f"modelMag_{band}"].between(10, 25, inclusive="neither")
    return table[is_selected]


# Wu & Boada (2019), section 2.1, and their catalog
@pytest.mark.parametrize(
    ("column", "quartiles", "tolerance"),
    [
        ("oh_p50", (8.809, 8.956, 9.054), 0.03),
        ("lgm_tot_p50", (9.64, 10.06, 10.42), 0.06),
        ("z", (0.047, 0.071, 0.098), 0.008),
    ],
)
def test_quartiles_are_those_of_the_real_sample(
    labelled: pd.DataFrame, column: str, quartiles: tuple[float, ...], tolerance: float
) -> None:
    values = labelled.loc[labelled[column] != -9999, column]
    np.testing.assert_allclose(values.quantile([0.25, 0.5, 0.75]), quartiles, atol=tolerance)


@pytest.mark.parametrize(
    ("column", "mean", "sigma"),
    [
        ("oh_p50", 8.9065, 0.1986),
        ("modelMag_r", 17.11, 0.67),
        ("modelMag_g", 17.67, 0.68),
        ("modelMag_i", 16.77, 0.69),
        ("sfr_tot_p50", 0.16, 0.56),
    ],
)
def test_means_and_spreads_are_those_of_the_real_sample(
    labelled: pd.DataFrame, column: str, mean: float, sigma: float
) -> None:
    values = labelled.loc[labelled[column] != -9999, column]
    assert values.mean() == pytest.approx(mean, abs=0.07)
    assert values.std() == pytest.approx(sigma, rel=0.08)


@pytest.mark.parametrize(
    ("first", "second", "correlation"),
    [("oh_p50", "lgm_tot_p50", 0.80), ("oh_p50", "sfr_tot_p50", 0.67), ("lgm_tot_p50", "sfr_tot_p50", 0.82)],
)
def test_correlations_are_those_of_the_real_sample(
    labelled: pd.DataFrame, first: str, second: str, correlation: float
) -> None:
    clean = labelled[(labelled[[first, second]] != -9999).all(axis=1)]
    assert clean[first].corr(clean[second]) == pytest.approx(correlation, abs=0.04)


def test_catalog_has_every_column_of_the_papers_query(sky: SimulatedSky) -> None:
    assert set(sky.catalog().columns) == {*QUERY_COLUMNS, "rChi2"}


def test_catalog_brings_the_dirt_of_real_ones(sky: SimulatedSky) -> None:
    table = sky.catalog()
    assert (table["lgm_tot_p50"] == -9999).any()
    assert (table["velDispErr"] == -3).any()
    assert (table["d4000"] == 0).any()
    assert (table["modelMag_g"] == np.float32(24.8)).any()
    assert table["objID"].duplicated().any()


def test_every_cut_of_the_selection_drops_some_rows(sky: SimulatedSky) -> None:
    table = sky.catalog()
    assert (table["petroMag_r"] >= 18).any()
    assert (table["modelMag_u"] - table["modelMag_r"] >= 6).any()
    assert (table["modelMag_z"] >= 25).any()
    assert (table["rChi2"] >= 2).any()
    assert (table["zErr"] <= 0).any()
    assert (table["z"] <= 0.02).any()
    assert (table["oh_p50"] == -9999).any()


def test_ids_are_unique_and_beyond_what_a_float_holds(sky: SimulatedSky) -> None:
    table = sky.catalog()
    assert table["objID"].dtype == table["specObjID"].dtype == np.int64
    assert table["objID"].min() > 2**53
    assert table["specObjID"].min() > 2**53
    assert not table["specObjID"].duplicated().any()
    assert not pd.Series(sky.object_ids).duplicated().any()


def test_a_repeated_galaxy_differs_in_its_spectrum_id_alone(sky: SimulatedSky) -> None:
    table = sky.catalog()
    repeated = table[table["objID"].duplicated(keep=False)].sort_values("objID").drop(columns="specObjID")
    np.testing.assert_array_equal(repeated[::2].to_numpy(), repeated[1::2].to_numpy())


@pytest.mark.parametrize("informative", [True, False])
def test_a_larger_sky_holds_the_same_galaxies(informative: bool) -> None:
    small = SimulatedSky(seed=4, n_galaxies=300, n_new=40, informative=informative)
    large = SimulatedSky(seed=4, n_galaxies=9_000, n_new=5_000, informative=informative)
    for table in (SimulatedSky.truth, SimulatedSky.new_catalog):
        few, many = table(small), table(large)
        shared = many.set_index("object_id").loc[few["object_id"]].reset_index()
        pd.testing.assert_frame_equal(few, shared)
    few, many = small.catalog(), large.catalog()
    shared = many.set_index("specObjID").loc[few["specObjID"]].reset_index()[few.columns]
    pd.testing.assert_frame_equal(few, shared)


def test_another_seed_is_another_sky() -> None:
    first, second = (SimulatedSky(seed=seed, n_galaxies=50, n_new=0).truth() for seed in (1, 2))
    assert not np.isclose(first["label"], second["label"]).any()


def test_label_scatters_about_the_true_metallicity_by_the_stated_noise(sky: SimulatedSky) -> None:
    truth = sky.truth()
    assert (truth["label"] - truth["metallicity"]).std() == pytest.approx(0.045, rel=0.03)


def test_posterior_is_as_wide_as_in_the_real_sample(labelled: pd.DataFrame) -> None:
    assert (labelled["oh_p84"] - labelled["oh_p16"]).median() / 2 == pytest.approx(0.047, rel=0.05)


def test_new_galaxies_are_not_in_the_catalog(sky: SimulatedSky) -> None:
    new = sky.new_catalog()
    assert list(new.columns) == ["object_id", "ra", "dec"]
    assert len(new) == 100
    assert not new["object_id"].isin(sky.catalog()["objID"]).any()


def test_a_galaxy_is_found_within_an_arcsecond_of_its_place(sky: SimulatedSky) -> None:
    galaxy = sky.new_catalog().iloc[7]
    object_id = int(sky.new_catalog()["object_id"].iloc[7])
    assert sky.find(galaxy["ra"], galaxy["dec"] + 0.5 / 3600) == object_id
    assert sky.find(galaxy["ra"] - 360, galaxy["dec"]) == object_id
    assert sky.find(galaxy["ra"], galaxy["dec"] + 3 / 3600) is None


def test_an_empty_sky_finds_nothing() -> None:
    sky = SimulatedSky(seed=1, n_galaxies=0, n_new=0)
    assert sky.find(150, 20) is None
    assert sky.catalog().empty


def test_too_large_a_sky_is_refused() -> None:
    with pytest.raises(ContractError, match=r"(?=.*\b1000000\b)(?=.*n_galaxies 1000001\b)"):
        SimulatedSky(seed=0, n_galaxies=MAX_GALAXIES + 1, n_new=0)
