"""What `explore` measures and draws of a data set before anything is trained."""
