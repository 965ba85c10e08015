"""A user's session with lsdb: FOLDER/hats is opened, searched around RA DEC, and crossmatched with FOLDER/input.csv."""

import sys
from pathlib import Path

import pandas as pd

if __name__ == "__main__":
    # where tests are collected, its warnings would be errors
    import lsdb

    folder, ra, dec = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    catalog = lsdb.open_catalog(folder / "hats")
    given = pd.read_csv(folder / "input.csv")
    assert len(catalog.compute()) == len(given), "rows"
    near = catalog.cone_search(ra=ra, dec=dec, radius_arcsec=5).compute()
    assert near["object_id"].tolist() == given.loc[(given.ra == ra) & (given.dec == dec), "object_id"].tolist(), "cone"
    mine = lsdb.from_dataframe(given, ra_column="ra", dec_column="dec", margin_threshold=10)
    matched = mine.crossmatch(catalog, radius_arcsec=1, suffixes=("_in", "_out")).compute()
    assert len(matched) == len(given), "matches"
    assert (matched["object_id_in"] == matched["object_id_out"]).all(), "ids"
    assert {"prediction_out", "flag_names_out"} <= set(matched.columns) | {f"{name}_out" for name in matched.columns}
