"""Reports on a run: statistics over its rows, figures, and the page."""
