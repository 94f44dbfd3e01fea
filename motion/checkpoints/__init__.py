"""Weight files: what a file is, its configuration, and its tensors in a network."""
