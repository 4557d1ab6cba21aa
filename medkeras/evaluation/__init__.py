"""From predictions to numbers with intervals, explanations and the report."""
