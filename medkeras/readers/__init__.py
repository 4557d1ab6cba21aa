"""Files on disk to a table: one row per picture or exam."""
