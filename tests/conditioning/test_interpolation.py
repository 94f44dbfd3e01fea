"""Between two conditionings."""

import pytest
import torch

from motion.conditioning.interpolation import interpolated, padded
from motion.settings import PROMPT_INTERPOLATIONS


def tensors(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator), torch.randn(*shape, generator=generator)


@pytest.mark.parametrize("method", PROMPT_INTERPOLATIONS)
def test_the_ends_are_the_tensors_themselves(method):
    a, b = tensors(5, 8)
    assert interpolated(a, b, 0.0, method) is a
    assert interpolated(a, b, 1.0, method) is b


@pytest.mark.parametrize("method", PROMPT_INTERPOLATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_equal_stays_to_the_bit(method, dtype):
    a, b = (tensor.to(dtype) for tensor in tensors(5, 8))
    b[2] = a[2]
    b[:, 6:] = a[:, 6:]
    middle = interpolated(a, b, 0.3, method)
    assert middle.dtype == dtype
    assert torch.equal(middle[2], a[2])
    assert torch.equal(middle[:, 6:], a[:, 6:])
    assert torch.equal(interpolated(a, a.clone(), 0.3, method), a)


def test_lerp():
    a, b = tensors(5, 8)
    torch.testing.assert_close(interpolated(a, b, 0.25, "lerp"), 0.75 * a + 0.25 * b)


def test_slerp_turns_each_vector_by_its_own_angle_and_keeps_its_length():
    a, b = (torch.nn.functional.normalize(tensor, dim=-1) for tensor in tensors(5, 8))
    middle = interpolated(a, b, 0.25, "slerp")
    torch.testing.assert_close(middle.norm(dim=-1), torch.ones(5))
    angle = (a * b).sum(-1).acos()
    torch.testing.assert_close((a * middle).sum(-1).acos(), angle * 0.25, atol=1e-5, rtol=0)


def test_slerp_of_parallel_opposite_and_zero_vectors_is_lerp():
    a = torch.tensor([[1.0, 2.0], [1.0, 0.0], [0.0, 0.0]])
    b = torch.tensor([[2.0, 4.0], [-1.0, -0.0], [3.0, 1.0]])
    torch.testing.assert_close(interpolated(a, b, 0.25, "slerp"), torch.lerp(a, b, 0.25))


def test_padding_appends_the_empty_prompt():
    tokens, empty = torch.zeros(4, 2), torch.arange(8.0).view(4, 2)
    assert padded(tokens, 4, empty) is tokens
    longer = padded(tokens, 10, empty)
    assert torch.equal(longer, torch.cat([tokens, empty, empty[:2]]))
