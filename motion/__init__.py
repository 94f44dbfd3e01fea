"""Motion: turns Stable Diffusion checkpoints into video makers. Importing this package changes nothing."""
