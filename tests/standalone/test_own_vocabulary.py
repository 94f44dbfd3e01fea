"""A checkpoint with a vocabulary of its own in the embedded host: its ids, its conditions, and no trace of it after."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from motion.checkpoints.text_folder import CLIP_NAME, FOLDER_PLACEHOLDER
from motion.errors import CheckpointError
from motion.models.clip_text import ClipTextEncoder
from motion.models.clip_tokenizer import ClipTokenizer
from motion.models.precision import choose_precision
from motion.standalone import devices, namespace, sd_models, shared
from motion.standalone.checkpoint_info import CheckpointInfo
from tests import random_weights
from tests.text_folders import write_text_folder
from tests.weights_recipe import fill

PREFIX = "cond_stage_model."
LONG = "a red circle, moving left, " * 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A host's folder of checkpoints: "plain" with CLIP's vocabulary, "own" with a small one."""
    folder = tmp_path_factory.mktemp("data") / "models" / "Stable-diffusion"
    folder.mkdir(parents=True)
    tensors, yaml = random_weights.checkpoint_tensors(), random_weights.checkpoint_config()
    save_file(tensors, folder / "plain.safetensors")
    (folder / "plain.yaml").write_text(yaml)
    with torch.device("meta"):
        text = ClipTextEncoder(write_text_folder(folder / "own-text", num_layers=3)).state_dict()
    others = {key: value for key, value in tensors.items() if not key.startswith(PREFIX)}
    own = {PREFIX + key: fill(key, tuple(value.shape)).half() for key, value in text.items()}
    save_file({**others, **own}, folder / "own.safetensors")
    (folder / "own.yaml").write_text(yaml.replace(CLIP_NAME, FOLDER_PLACEHOLDER))
    return folder


@pytest.fixture
def host(folder):
    with namespace.installed(["--data-dir", str(folder.parents[1])]):
        devices.configure(choose_precision("fp32", device="cpu"))
        yield


def load(folder, name):
    return sd_models.load_model(CheckpointInfo(folder / f"{name}.safetensors", str(folder)))


@pytest.fixture
def original(folder):
    """transformers' tokenizer, and its text model with the checkpoint's weights, from the folder alone."""
    network = CLIPTextModel(CLIPTextModel.config_class.from_pretrained(folder / "own-text")).eval()
    tensors = load_file(folder / "own.safetensors")
    prefix = PREFIX + "transformer."
    network.load_state_dict({key.removeprefix(prefix): tensors[key].float() for key in tensors if prefix in key})
    return CLIPTokenizer.from_pretrained(folder / "own-text"), network


@torch.no_grad()
def test_conditions_are_those_of_transformers(host, folder, original):
    tokenizer, network = original
    assert network.config.num_attention_heads == 4
    conditioner = load(folder, "own").cond_stage_model
    for text in ("a red circle moving left on a background", "", "日本 and ünknown words, 12!"):
        ids = tokenizer(text, padding="max_length", max_length=77, return_tensors="pt")["input_ids"]
        hidden = network(ids, output_hidden_states=True)
        torch.testing.assert_close(conditioner([text]), hidden.last_hidden_state, rtol=0, atol=1e-5)
        conditioner.clip_skip = 2
        expected = network.text_model.final_layer_norm(hidden.hidden_states[-2])
        torch.testing.assert_close(conditioner([text]), expected, rtol=0, atol=1e-5)
        conditioner.clip_skip = 1


def test_start_end_and_commas_are_those_of_the_folder(host, folder):
    conditioner = load(folder, "own").cond_stage_model
    size = conditioner.clip.config.vocabulary_size
    tokenizer = conditioner.tokenizer
    assert (tokenizer.start_id, tokenizer.end_id, tokenizer.comma_id) == (size - 2, size - 1, 267)
    assert conditioner.count_tokens("a red circle, on a background") == (7, 75)
    chunks = [row[0] for row in conditioner.split([LONG])]
    assert len(chunks) == 2
    assert {chunk.tokens[0] for chunk in chunks} == {size - 2}
    # The full chunk ends after its last comma instead.
    assert chunks[0].tokens[72:77] == [*tokenizer.encode("red circle,"), size - 1, size - 1]


def test_checkpoints_do_not_share_vocabularies(host, folder):
    before = load(folder, "plain").get_learned_conditioning(["a red circle"])
    own = load(folder, "own")
    assert own.get_learned_conditioning(["a red circle"]).shape == (1, 77, 64)
    after = load(folder, "plain")
    assert after.cond_stage_model.tokenizer.vocabulary == ClipTokenizer().vocabulary
    assert torch.equal(after.get_learned_conditioning(["a red circle"]), before)


def test_broken_folder_leaves_the_loaded_checkpoint(host, folder, tmp_path):
    loaded = load(folder, "plain")
    for path in folder.glob("own.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(CheckpointError, match=r"own-text: The folder of the checkpoint's text encoder is missing"):
        load(tmp_path, "own")
    assert shared.sd_model is loaded
