"""The survey played on loopback, over a simulated sky or a folder of cutouts: for rehearsals, tests and the demo."""
