"""The list of checkpoints; no file of it is loaded."""

from __future__ import annotations

import pytest

from motion.errors import CheckpointError
from motion.standalone import namespace, sd_models
from motion.standalone.checkpoint_info import CheckpointInfo


@pytest.fixture
def host(tmp_path):
    folder = tmp_path / "models" / "Stable-diffusion" / "sub"
    folder.mkdir(parents=True)
    (folder / "small.safetensors").write_bytes(b"contents")
    (folder / "small.vae.safetensors").write_bytes(b"a VAE is no checkpoint")
    (folder / "notes.txt").write_text("nor is this")
    with namespace.installed(["--data-dir", str(tmp_path)]) as state:
        yield state


def test_checkpoints_are_found_in_folders(host):
    sd_models.list_models()
    assert list(sd_models.checkpoints_list) == ["sub/small.safetensors"]
    info = sd_models.checkpoints_list["sub/small.safetensors"]
    assert (info.model_name, info.name_for_extra, info.is_safetensors) == ("sub_small", "small", True)
    assert info.shorthash is None


def test_checkpoints_answer_to_every_name(host):
    sd_models.list_models()
    (info,) = sd_models.checkpoints_list.values()
    assert info.calculate_shorthash() == info.sha256[:10]
    sd_models.register_checkpoint(info)
    assert list(sd_models.checkpoints_list) == [f"sub/small.safetensors [{info.shorthash}]"]
    for name in (info.title, info.short_title, "small", "sub_small", info.hash, info.shorthash, info.sha256):
        assert sd_models.get_closet_checkpoint_match(name) is info
    for name in ("sub/small.safetensors [0123456789]", "small.safet"):
        assert sd_models.get_closet_checkpoint_match(name) is info
    assert sd_models.get_closet_checkpoint_match("other") is None
    assert sd_models.get_closet_checkpoint_match("") is None


def test_place_in_the_list_stays_when_the_hash_becomes_known(host, tmp_path):
    (tmp_path / "models" / "Stable-diffusion" / "sub" / "z.ckpt").write_bytes(b"other")
    sd_models.list_models()
    first, second = sd_models.checkpoints_list.values()
    first.calculate_shorthash()
    sd_models.register_checkpoint(first)
    assert list(sd_models.checkpoints_list.values()) == [first, second]
    assert list(sd_models.checkpoints_list) == [first.title, "sub/z.ckpt"]


def test_hash_follows_the_file(tmp_path):
    path = tmp_path / "a.ckpt"
    path.write_bytes(b"one")
    first = CheckpointInfo(path).calculate_shorthash()
    path.write_bytes(b"other")
    assert CheckpointInfo(path).calculate_shorthash() != first


def test_unknown_checkpoint_is_refused(host):
    host.opts.data["sd_model_checkpoint"] = "missing.ckpt"
    with pytest.raises(CheckpointError, match=r"missing\.ckpt: no checkpoint has this name\. Choose one of sub/small"):
        sd_models.select_checkpoint()


def test_empty_folder_says_where_to_put_a_checkpoint(tmp_path):
    with namespace.installed(["--data-dir", str(tmp_path)]):
        with pytest.raises(CheckpointError, match=r"Put a \.safetensors or \.ckpt file into .*Stable-diffusion"):
            sd_models.model_data.get_sd_model()


def test_checkpoint_of_the_command_line_is_chosen(tmp_path):
    checkpoint_file = tmp_path / "elsewhere.ckpt"
    checkpoint_file.write_bytes(b"contents")
    with namespace.installed(["--data-dir", str(tmp_path), "--ckpt", str(checkpoint_file)]):
        sd_models.list_models()
        assert sd_models.select_checkpoint().filename == str(checkpoint_file)
