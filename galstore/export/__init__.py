"""Export of a snapshot of the cube to files that other tools read without galstore."""

from galstore.export.cube import export_cube
from galstore.export.formats import Exported, ExportFormat

__all__ = ["ExportFormat", "Exported", "export_cube"]
