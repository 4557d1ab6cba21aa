"""What a finished run offers to others."""
