"""The report: a verdict, pictures and a page."""
