"""What the rows say: statistics, figures and the report page."""
