"""What the sampler is told per frame: prompts and their tags."""
