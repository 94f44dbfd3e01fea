"""Text encoders with a vocabulary of their own: where the yaml says it is, and what the folder must hold."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
import yaml

from motion.checkpoints.stable_diffusion import inspect_checkpoint, open_checkpoint
from motion.checkpoints.text_folder import CLIP_NAME, FOLDER_PLACEHOLDER, find_text_folder, read_text_folder
from motion.errors import CheckpointError
from motion.models.autoencoder import AutoencoderConfig, AutoencoderKL
from motion.models.clip_text import ClipTextEncoder, ClipTextEncoderConfig
from motion.models.clip_tokenizer import ClipTokenizer
from motion.models.unet import UNetConfig, UNetModel
from tests.checkpoints.files import fill, write_tensors
from tests.text_folders import change_config, own_text_config, write_text_folder

UNET = UNetConfig(model_channels=32, channel_mult=(1,), transformer_depth=(1,), num_res_blocks=1, context_dim=64)
AUTOENCODER = AutoencoderConfig(ch=32, ch_mult=(1,), num_res_blocks=1)


def write_checkpoint(path, version, text):
    """A checkpoint whose yaml names `version`; None leaves the name out."""
    shapes = {}
    parts = (
        ("model.diffusion_model.", UNetModel, UNET),
        ("first_stage_model.", AutoencoderKL, AUTOENCODER),
        ("cond_stage_model.", ClipTextEncoder, text),
    )
    for prefix, network, config in parts:
        with torch.device("meta"):
            shapes |= {prefix + key: tuple(value.shape) for key, value in network(config).state_dict().items()}
    write_tensors(path, fill(shapes, torch.float16))
    text_stage = {"target": "FrozenCLIPEmbedder"} if version is None else {"params": {"version": str(version)}}
    content = {"model": {"params": {"unet_config": {"params": {}}, "cond_stage_config": text_stage}}}
    path.with_suffix(".yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("place", ["absolute", "relative", "placeholder"])
def test_checkpoint_takes_heads_activation_and_vocabulary_from_the_folder(tmp_path, place):
    folder = {"absolute": tmp_path / "else" / "where", "relative": tmp_path / "own", "placeholder": tmp_path / "a-text"}
    version = {"absolute": folder["absolute"], "relative": "own", "placeholder": FOLDER_PLACEHOLDER}
    text = write_text_folder(folder[place], hidden_act="gelu")
    with open_checkpoint(write_checkpoint(tmp_path / "a.safetensors", version[place], text)) as checkpoint:
        assert checkpoint.config.text_encoder == text
        assert checkpoint.config.text_encoder.num_heads == 4
        tokenizer = checkpoint.load_tokenizer()
    assert tokenizer.vocabulary == ClipTokenizer.from_folder(folder[place]).vocabulary
    assert len(tokenizer.encode("a red circle")) == 3
    assert tokenizer.end_id == text.vocabulary_size - 1


@pytest.mark.parametrize("version", [None, CLIP_NAME])
def test_without_a_folder_all_is_as_in_clip(tmp_path, version):
    text = dataclasses.replace(own_text_config(num_heads=1), vocabulary_size=49408)
    with open_checkpoint(write_checkpoint(tmp_path / "a.safetensors", version, text)) as checkpoint:
        assert checkpoint.config.text_encoder == text
        assert checkpoint.load_tokenizer().vocabulary == ClipTokenizer().vocabulary


def test_small_vocabulary_without_its_folder_is_refused(tmp_path):
    path = write_checkpoint(tmp_path / "a.safetensors", None, text := own_text_config())
    for _ in range(2):
        message = (
            rf"a\.safetensors: Its text encoder has {text.vocabulary_size} tokens, so its vocabulary is not CLIP's"
        )
        with pytest.raises(CheckpointError, match=message):
            inspect_checkpoint(path)
        path.with_suffix(".yaml").unlink(missing_ok=True)


@pytest.mark.parametrize("file", ["config.json", "vocab.json", "merges.txt", ""])
def test_missing_file_is_named(tmp_path, file):
    text = write_text_folder(tmp_path / "own")
    path = write_checkpoint(tmp_path / "a.safetensors", "own" if file else "other", text)
    if file:
        (tmp_path / "own" / file).unlink()
    message = rf"own.{file}: The file is missing" if file else r"other: The folder .* is missing.* correct `version`"
    with pytest.raises(CheckpointError, match=message):
        inspect_checkpoint(path)


def test_vocabulary_of_another_size_than_the_tensors(tmp_path):
    text = write_text_folder(tmp_path / "own")
    path = write_checkpoint(tmp_path / "a.safetensors", "own", dataclasses.replace(text, vocabulary_size=600))
    message = rf"config\.json: `vocab_size` is {text.vocabulary_size}, but the checkpoint's tensors say 600"
    with pytest.raises(CheckpointError, match=message):
        inspect_checkpoint(path)
    change_config(tmp_path / "own", vocab_size=600)
    message = rf"vocab\.json: It has {text.vocabulary_size} tokens, but the checkpoint's text encoder has 600"
    with pytest.raises(CheckpointError, match=message):
        inspect_checkpoint(path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_size": 128}, "`hidden_size` is 128, but the checkpoint's tensors say 64"),
        ({"num_hidden_layers": 12}, "`num_hidden_layers` is 12, but the checkpoint's tensors say 2"),
        ({"max_position_embeddings": 32}, "`max_position_embeddings` is 32"),
        ({"num_attention_heads": 5}, "64 channels can't be split into `num_attention_heads`, 5"),
        ({"num_attention_heads": 0}, "`num_attention_heads` must be a positive integer, got 0"),
        ({"num_attention_heads": "many"}, "must be a positive integer, got 'many'"),
        ({"hidden_act": "relu"}, "`hidden_act` must be one of quick_gelu, gelu, got relu"),
        ({"layer_norm_eps": 1e-6}, "`layer_norm_eps` must be 1e-05, got 1e-06"),
    ],
)
def test_config_that_does_not_fit(tmp_path, settings, message):
    text = write_text_folder(tmp_path / "own")
    change_config(tmp_path / "own", **settings)
    with pytest.raises(CheckpointError, match=rf"config\.json: .*{message}"):
        inspect_checkpoint(write_checkpoint(tmp_path / "a.safetensors", "own", text))


def test_what_config_leaves_out_is_what_transformers_takes(tmp_path):
    write_text_folder(tmp_path, num_heads=8)
    change_config(tmp_path, num_attention_heads=None, hidden_act=None, layer_norm_eps=None, vocab_size=None)
    folder = read_text_folder(tmp_path)
    assert (folder.num_heads, folder.hidden_act) == (8, "quick_gelu")


def test_config_of_a_whole_clip(tmp_path):
    write_text_folder(tmp_path, num_heads=2)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "clip", "text_config": json.loads(path.read_text())}))
    assert read_text_folder(tmp_path).num_heads == 2


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", b"[]", "Expected a JSON object, got a list"),
        ("config.json", b"{", "The file is no JSON"),
        ("config.json", b"[" * 100_000, "The file is no JSON"),
        ("vocab.json", b"\xff", "The file can't be read"),
        ("vocab.json", b"{}", "It lacks 514 tokens that texts may need, such as `!`"),
        ("vocab.json", b'{"a": 1, "b": 2}', "Its 2 tokens must have the ids 0 to 1, each once"),
        ("vocab.json", b'{"a": true, "b": 0}', "Its 2 tokens must have the ids 0 to 1"),
        ("vocab.json", b'{"a": "0"}', "Its 1 tokens must have the ids 0 to 0"),
        ("vocab.json", b'{"\\ud800": 0}', "The file is no JSON"),
        ("merges.txt", b"#version\nr e\nr\n", "Line 3 must be two tokens of vocab.json that join to a third, got 'r'"),
        ("merges.txt", b"#version\nx y\n", "Line 2 must be two tokens of vocab.json that join to a third, got 'x y'"),
        ("merges.txt", b"\xff", "The file can't be read"),
    ],
)
def test_damaged_file_is_named(tmp_path, file, content, message):
    write_text_folder(tmp_path)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{file}: {message}"):
        read_text_folder(tmp_path)


@pytest.mark.parametrize("version", [3, "", ["a"], False])
def test_version_that_is_no_path(tmp_path, version):
    with pytest.raises(CheckpointError, match=r"a\.yaml: `version` of the text encoder must be the path of a folder"):
        find_text_folder(version, tmp_path / "a.yaml")


@pytest.mark.parametrize("version", ["x" * 5000, "a\0b"])
def test_version_that_no_folder_can_have(tmp_path, version):
    with pytest.raises(CheckpointError, match="The folder of the checkpoint's text encoder is missing"):
        read_text_folder(find_text_folder(version, tmp_path / "a.yaml"))


def test_longer_list_of_merges_ends_where_clips_does(tmp_path):
    write_text_folder(tmp_path)
    lines = ["#version: 0.2", *["r e"] * 48894, "no such"]
    (tmp_path / "merges.txt").write_text("\n".join(lines))
    assert len(ClipTokenizer.from_folder(tmp_path).merges) == 48894


def test_encoder_runs_as_the_folder_says(tmp_path):
    text = write_text_folder(tmp_path / "own")
    path = write_checkpoint(tmp_path / "a.safetensors", "own", text)
    with open_checkpoint(path) as checkpoint:
        encoder = checkpoint.load_text_encoder(device=torch.device("cpu"), dtype=torch.float32)
    assert encoder.config == ClipTextEncoderConfig(
        vocabulary_size=text.vocabulary_size, hidden_size=64, num_layers=2, num_heads=4, intermediate_size=128
    )
    assert encoder(torch.zeros(1, 77, dtype=torch.long)).shape == (1, 77, 64)
