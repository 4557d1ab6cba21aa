"""Words, tables and pages."""
