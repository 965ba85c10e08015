"""The survey's side, seen from the client: catalogs and cutouts, however the service misbehaves."""
