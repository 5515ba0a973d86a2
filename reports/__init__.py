"""What a run shows: statistics over its rows, figures, and the page."""
