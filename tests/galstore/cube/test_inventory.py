from __future__ import annotations

import json

from galstore.cube.inventory import take_inventory
from galstore.cube.reader import Cube


def test_inventory_says_what_the_cube_holds(filled_cube: Cube) -> None:
    plain = json.loads(json.dumps(take_inventory(filled_cube).to_dict()))
    assert [plain[key] for key in ("registered", "stored", "quarantined", "pending")] == [1100, 1100, 0, 0]
    assert plain["counts_add_up"]
    assert plain["levels"]["64"] == {"shape": [1100, 64, 64, 3], "dtype": "uint8", "chunk_rows": 128}
    assert plain["catalogs"][0]["n_registered"] == 1100
    assert plain["bytes_stored"] > 1100 * 1500
    assert plain["snapshot_id"] == filled_cube.snapshot_id
