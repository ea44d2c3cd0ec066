"""From recorded games to figures: statistics, the summary, charts and the report page."""
