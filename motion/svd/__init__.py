"""Image to video with Stable Video Diffusion: conditions, guidance, sampling, and the pipeline for Python."""
