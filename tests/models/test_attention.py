import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from motion.models.attention import MAX_ATTENTION_ROWS, CrossAttention, FeedForward, attend


class AttentionCalls(TorchFunctionMode):
    """Records batch and heads of each attention call."""

    def __init__(self):
        self.shapes = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.scaled_dot_product_attention:
            self.shapes.append(tuple(args[0].shape[:2]))
        return function(*args, **(kwargs or {}))


def reference(query, key, value, num_heads):
    """Softmax attention by its definition, in one piece."""

    def heads(x):
        return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)

    query, key, value = map(heads, (query, key, value))
    weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(dim=-1)
    return (weights @ value).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("num_heads", [1, 4, 8])
@pytest.mark.parametrize("rows", [65_535, 65_536, 131_072])
def test_attend_equals_one_unchunked_call_at_the_row_limit(rows, num_heads):
    batch = -(-rows // num_heads)
    generator = torch.Generator().manual_seed(rows)
    query, key, value = (torch.randn(batch, 2, 2 * num_heads, generator=generator) for _ in range(3))

    with AttentionCalls() as calls:
        result = attend(query, key, value, num_heads)

    assert all(parts * heads <= MAX_ATTENTION_ROWS for parts, heads in calls.shapes)
    assert all(heads == num_heads for _, heads in calls.shapes)
    assert sum(parts for parts, _ in calls.shapes) == batch
    torch.testing.assert_close(result, reference(query, key, value, num_heads), atol=1e-6, rtol=0)


def test_attend_makes_one_call_below_the_limit():
    x = torch.randn(MAX_ATTENTION_ROWS // 8, 1, 8)
    with AttentionCalls() as calls:
        attend(x, x, x, num_heads=8)
    assert calls.shapes == [(MAX_ATTENTION_ROWS // 8, 8)]


def test_attend_takes_keys_of_another_length():
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(3, 5, 12, generator=generator)
    key, value = (torch.randn(3, 7, 12, generator=generator) for _ in range(2))
    torch.testing.assert_close(attend(query, key, value, 4), reference(query, key, value, 4), atol=1e-6, rtol=0)


def test_cross_attention_without_context_attends_to_itself():
    torch.manual_seed(0)
    attention = CrossAttention(16, num_heads=2, head_dim=8)
    x = torch.randn(2, 5, 16)
    torch.testing.assert_close(attention(x), attention(x, x), atol=0, rtol=0)


def test_feed_forward_has_the_keys_of_the_public_files():
    assert set(FeedForward(8).state_dict()) == {"net.0.proj.weight", "net.0.proj.bias", "net.2.weight", "net.2.bias"}
