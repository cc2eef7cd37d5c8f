"""What a mesh is made of, as values: each says what the files want, reads what is there, and tells the difference."""
