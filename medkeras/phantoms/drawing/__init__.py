"""Pictures of anatomy: bones, chests and knees as rays and scanners see them."""
