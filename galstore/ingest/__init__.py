"""Registration of catalogs and filling of the cube with cutouts."""
