"""Names that settings of image to video may have. Imports no torch, so that a command line's help comes at once."""

GUIDANCE_SHAPES = ("linear", "triangle", "constant")
"""From the lowest to the highest scale; up to the highest and back, for loops; the highest for all frames."""
SAMPLER_NAMES = ("euler", "euler_a", "dpmpp_2m")
FITS = ("crop", "pad", "stretch")
"""Cut the overhanging sides off; black bars; no regard to the proportions."""
MIN_SIDE = 16
"""Pixels that a side of a picture must have at least: less shows nothing that could move."""
