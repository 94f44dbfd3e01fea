import pytest
import torch

from motion.models.clip_vision import ClipImageEncoder, ClipImageEncoderConfig
from tests.svd_networks import TINY_CLIP


def test_encodes_pictures_in_the_weights_type():
    encoder = ClipImageEncoder(TINY_CLIP).eval().requires_grad_(False).half()
    result = encoder(torch.zeros(2, 3, 56, 56))
    assert (result.shape, result.dtype, encoder.dtype) == ((2, 48), torch.float16, torch.float16)


def test_table_of_positions_is_real_on_the_meta_device():
    with torch.device("meta"):
        encoder = ClipImageEncoder(TINY_CLIP)
    positions = encoder.transformer.vision_model.embeddings.position_ids
    assert positions.tolist() == [list(range(17))]
    assert not [key for key in encoder.state_dict() if "position_ids" in key]


def test_heads_that_do_not_divide_the_channels():
    with pytest.raises(ValueError, match="multiple of `num_heads`, got 1280 and 12"):
        ClipImageEncoderConfig(num_heads=12)
