"""The page of a report: markup, plots, and its parts."""
