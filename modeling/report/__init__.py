"""Report of three HTML pages: model, data quality and predictions of a new catalog."""
