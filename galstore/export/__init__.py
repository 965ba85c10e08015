"""Export: a snapshot of the cube, or some of its objects, as files that other tools open without galstore."""

from galstore.export.cube import Exported, ExportFormat, export_cube

__all__ = ["ExportFormat", "Exported", "export_cube"]
