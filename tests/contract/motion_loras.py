"""Motion LoRAs by prompt and by field, several at once, and a domain adapter; nothing of them stays behind."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.torch import load_file

from tests.contract import network_files
from tests.contract.clips import CLEARLY_DIFFERENT, difference, read_parameters
from tests.contract.networks import checkpoint_of
from tests.contract.weights import WIDTHS, write_motion_module

FRAMES = 3
TOLERANCE = 5e-4  # of 1.0: a merged LoRA and one beside the weights add up in another order
PAN, ZOOM = "<lora:contract-pan:0.8>", "<lora:contract-zoom:-0.5>"
ORDINARY = "<lora:contract-ordinary:0.8>"


def clip(host, **fields):
    answer = host.clip(frames=FRAMES, **fields)
    assert answer.status == 200, answer.message
    return answer


def stills(host, prompt: str = "a house"):
    return host.txt2img(batch_size=FRAMES, prompt=prompt)


class MotionLoraContract:
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def files(cls, host):
        """Two motion LoRAs, one in the web UI's folder and one in ours, an ordinary LoRA and a domain adapter."""
        loras, ours = host.data_dir / "models" / "Lora", host.data_dir / "models" / "motion"
        for seed, path in enumerate((loras / "contract-pan.safetensors", ours / "contract-zoom.safetensors")):
            write_motion_module(path, "v2_lora_ZoomIn", widths=WIDTHS[host.kind], seed=seed)
        checkpoint = load_file(checkpoint_of(host))
        network_files.write_network(
            loras / "contract-ordinary.safetensors", network_files.attention_changes(checkpoint, "ordinary"), "lora"
        )
        network_files.write_domain_adapter(
            ours / "contract-adapter.safetensors", network_files.attention_changes(checkpoint, "domain")
        )

    def test_a_tag_in_the_prompt_is_the_field_and_is_gone_before_the_host_looks(self, host):
        before = stills(host)
        read = host.log.stat().st_size
        tags = f"{PAN} {ZOOM}"
        by_field = clip(host, prompt="a house", motion={"motion_loras": tags})
        by_prompt = clip(host, prompt=f"a house{PAN}{ZOOM}")
        for answer in (by_field, by_prompt):
            assert answer.info["all_prompts"] == ["a house"] * FRAMES
            assert read_parameters(answer.info["infotexts"][0])["Motion LoRAs"] == tags
        assert np.array_equal(by_field.pixels, by_prompt.pixels)
        assert difference(by_field.pixels, clip(host, prompt="a house").pixels) > CLEARLY_DIFFERENT
        assert "contract-pan" not in host.log.read_text(errors="replace")[read:]
        assert stills(host).files == before.files

    @pytest.mark.thorough
    def test_several_at_once_in_any_order_add_up(self, host):
        one, both = (clip(host, motion={"motion_loras": tags}).pixels for tags in (PAN, f"{PAN} {ZOOM}"))
        assert difference(one, both) > CLEARLY_DIFFERENT
        in_order = host.decoded()
        clip(host, motion={"motion_loras": f"{ZOOM} {PAN}"})
        np.testing.assert_allclose(host.decoded(), in_order, atol=TOLERANCE)
        clip(host, motion={"motion_loras": f"{PAN} {PAN.replace('0.8', '-0.8')}"})
        cancelled = host.decoded()
        clip(host)
        np.testing.assert_allclose(host.decoded(), cancelled, atol=TOLERANCE)

    @pytest.mark.thorough
    def test_a_range_of_frames(self, host):
        whole = clip(host, motion={"motion_loras": PAN})
        all_frames, plain_still = host.decoded(), stills(host).files
        clip(host, motion={"motion_loras": PAN.replace(">", f"@0-{FRAMES - 1}>")})
        np.testing.assert_allclose(host.decoded(), all_frames, atol=TOLERANCE)
        half = clip(host, motion={"motion_loras": PAN.replace(">", "@0-1>")})
        assert difference(half.pixels, whole.pixels) > CLEARLY_DIFFERENT
        assert stills(host).files == plain_still

    @pytest.mark.thorough
    def test_an_ordinary_lora_beside_it_is_the_hosts(self, host):
        before = stills(host)
        with_ordinary = stills(host, f"a house {ORDINARY}").pixels
        assert difference(with_ordinary, before.pixels) > 0
        still = clip(host, prompt=f"a house {ORDINARY}{PAN}", motion={"motion_scale": 0})
        assert np.array_equal(still.pixels, with_ordinary)
        moving = clip(host, prompt=f"a house {ORDINARY}{PAN}").pixels
        assert difference(moving, clip(host, prompt=f"a house {ORDINARY}").pixels) > 0
        assert difference(moving, clip(host, prompt=f"a house {PAN}").pixels) > 0
        assert stills(host).files == before.files

    @pytest.mark.thorough
    def test_a_weight_out_of_range_is_refused_by_name(self, host):
        answer = host.clip(frames=FRAMES, prompt="a house <lora:contract-pan:3>")
        assert answer.status == 422
        assert "contract-pan" in answer.message

    @pytest.mark.thorough
    def test_a_domain_adapters_strength(self, host):
        before = stills(host)
        plain = clip(host, prompt="a house").pixels
        by_strength = {
            strength: clip(
                host,
                prompt="a house",
                motion={"domain_adapter": "contract-adapter", "domain_adapter_strength": strength},
            ).pixels
            for strength in (0, 0.5, 1)
        }
        assert np.array_equal(by_strength[0], plain)
        assert difference(by_strength[1], plain) > 0
        assert difference(by_strength[1], by_strength[0.5]) > 0
        assert stills(host).files == before.files
        assert np.array_equal(clip(host, prompt="a house").pixels, plain)
