"""The report: a verdict, pictures and an HTML page."""
