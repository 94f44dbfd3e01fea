from __future__ import annotations

from benchmarks.long_clip import Figures, Networks, ratios


def test_ratios_are_those_to_sixteen_frames():
    found = {
        ("attention", 16): Figures(2.0, 100),
        ("attention", 64): Figures(2.1, 400),
        ("attention", 128): Figures(2.2, 800),
        ("unet", 16): Figures(2.0, 100),
        ("unet", 128): Figures(2.8, 103),
    }
    assert ratios(found) == {
        "attention_64": 1.05,
        "attention_128": 1.1,
        "unet_128_time": 1.4,
        "unet_128_memory": 1.03,
    }


def test_memory_grows_with_the_clip_in_attention_scope_only():
    networks = Networks(32, 8)
    one = {scope: networks.peak_bytes(16, scope) for scope in ("attention", "unet")}
    assert one["attention"] == one["unet"]
    assert networks.peak_bytes(32, "attention") > 1.9 * one["attention"]
    assert networks.peak_bytes(32, "unet") < 1.3 * one["unet"]
    assert networks.seconds(32, "unet") > 0
