"""A web UI's own networks and embeddings beside a motion module: what they do to a clip is what they do to stills."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.torch import load_file

from motion.models.clip_tokenizer import ClipTokenizer
from tests.contract import network_files
from tests.contract.clips import difference
from tests.contract.rows import TOLERANCE
from tests.contract.server import CHECKPOINT

FRAMES = 3
LORA_ONLY = "the embedded host knows LoRA only"
KINDS = ("lora", "loha", "lokr", "lcm-lora", "embedding")
FAST_KINDS = ("lora",)
WORD, STANDS_FOR = "contractword", "lighthouse"
PROMPTS = {
    "lora": "a house <lora:contract-lora:0.8>",
    "loha": "a house <lora:contract-loha:0.8>",
    "lokr": "a house <lora:contract-lokr:0.8>",
    "lcm-lora": "a house <lora:contract-lcm:1>",
    "embedding": f"a house {WORD}",
}
LCM = {"sampler_name": "LCM", "cfg_scale": 1.5, "steps": 3}


def checkpoint_of(host):
    return host.data_dir / "models" / "Stable-diffusion" / f"{CHECKPOINT}.safetensors"


def prompt_of(host, kind: str) -> str:
    if host.kind == "embedded" and kind not in ("lora", "lcm-lora"):
        pytest.skip(LORA_ONLY)
    return PROMPTS[kind]


class DomainAdapterContract:
    """Goes before all other checks that use a LoRA: a web UI keeps its copy of the weights from the first on."""

    def test_an_ordinary_lora_first_used_beside_it_leaves_the_weights_as_they_were(self, host):
        loras = host.data_dir / "models" / "Lora"
        checkpoint = load_file(checkpoint_of(host))
        changes = {name: network_files.attention_changes(checkpoint, name) for name in ("first", "adapter")}
        network_files.write_network(loras / "contract-first.safetensors", changes["first"], "lora")
        network_files.write_domain_adapter(
            host.data_dir / "models" / "motion" / "adapter.safetensors", changes["adapter"]
        )
        adapted = {"motion": {"domain_adapter": "adapter"}, "frames": 2}
        before = host.txt2img(batch_size=2).files
        clip = host.clip(prompt="a lighthouse <lora:contract-first:0.8>", **adapted)
        assert host.txt2img(batch_size=2).files == before
        lora_alone = host.clip(prompt="a lighthouse <lora:contract-first:0.8>", frames=2)
        adapter_alone = host.clip(**adapted)
        assert difference(clip.pixels, lora_alone.pixels) > 0
        assert difference(clip.pixels, adapter_alone.pixels) > 0
        assert host.txt2img(batch_size=2).files == before


class NetworkContract:
    @pytest.fixture(scope="class")
    def changes(self, host):
        """The changes that the files hold, all of them written into the host's folders."""
        checkpoint = load_file(checkpoint_of(host))
        attention = network_files.attention_changes(checkpoint, "attention")
        whole = network_files.whole_unet_changes(checkpoint, "whole")
        loras = host.data_dir / "models" / "Lora"
        for spelling in network_files.SPELLINGS:
            network_files.write_network(loras / f"contract-{spelling}.safetensors", attention, spelling)
        network_files.write_network(loras / "contract-lcm.safetensors", whole, "lora")
        (token,) = ClipTokenizer().encode(STANDS_FOR)
        vectors = checkpoint[network_files.TOKENS][[token]]
        network_files.write_embedding(host.data_dir / "embeddings" / f"{WORD}.safetensors", vectors)
        return attention, whole

    @pytest.mark.parametrize(
        "kind", [pytest.param(kind, marks=() if kind in FAST_KINDS else pytest.mark.thorough) for kind in KINDS]
    )
    def test_a_clip_without_motion_is_the_batch_with_the_same_network(self, host, changes, kind):
        fields = {"prompt": prompt_of(host, kind), **(LCM if kind == "lcm-lora" else {})}
        plain = {**fields, "prompt": "a house"}
        before = host.txt2img(batch_size=FRAMES, **plain)
        batch = host.txt2img(batch_size=FRAMES, **fields).pixels
        still = host.clip(frames=FRAMES, motion={"motion_scale": 0}, **fields).pixels
        moving = host.clip(frames=FRAMES, **fields).pixels
        assert np.array_equal(still, batch)
        assert difference(moving, still) > 0
        assert difference(moving, host.clip(frames=FRAMES, **plain).pixels) > 0
        after = host.txt2img(batch_size=FRAMES, **plain)
        assert difference(batch, after.pixels) > 0
        assert after.files == before.files

    @pytest.mark.thorough
    @pytest.mark.parametrize("kind", ["loha", "lokr"])
    def test_one_change_in_another_spelling_makes_the_same_clip(self, host, changes, kind):
        prompt = prompt_of(host, kind)
        host.clip(frames=FRAMES, prompt=PROMPTS["lora"])
        as_lora = host.decoded()
        host.clip(frames=FRAMES, prompt=prompt)
        np.testing.assert_allclose(host.decoded(), as_lora, atol=TOLERANCE)

    @pytest.mark.thorough
    def test_networks_change_a_clip_as_weights_into_which_they_are_merged(self, host, changes):
        network_files.write_merged_checkpoint(checkpoint_of(host), "merged", changes)
        assert host.post("/sdapi/v1/refresh-checkpoints").status == 200
        prompt = "a house <lora:contract-lora:1> <lora:contract-lcm:1>"
        assert host.clip(frames=FRAMES, prompt=prompt, **LCM).status == 200
        applied = host.decoded()
        try:
            merged = {"override_settings": {"sd_model_checkpoint": "merged.safetensors"}}
            assert host.clip(frames=FRAMES, prompt="a house", **merged, **LCM).status == 200
            np.testing.assert_allclose(host.decoded(), applied, atol=TOLERANCE)
        finally:
            host.post("/sdapi/v1/options", {"sd_model_checkpoint": f"{CHECKPOINT}.safetensors"})

    @pytest.mark.thorough
    def test_an_embedding_of_a_words_own_vector_makes_the_clip_of_the_word(self, host, changes):
        with_embedding = host.clip(frames=FRAMES, prompt=prompt_of(host, "embedding"))
        assert np.array_equal(with_embedding.pixels, host.clip(frames=FRAMES, prompt=f"a house {STANDS_FOR}").pixels)
