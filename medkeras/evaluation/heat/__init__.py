"""What a model looks at: maps, what they are checked by, and how they are drawn."""
