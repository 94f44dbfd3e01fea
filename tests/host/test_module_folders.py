"""Which folders are searched for motion modules: our own, further ones, and those of older extensions."""

import pytest

from motion.errors import CheckpointError
from tests.checkpoints.files import narrow_tensors, write_tensors


@pytest.fixture
def library(web_ui, tmp_path):
    """(the files of a host, a function that puts a motion module into a folder of it)."""
    from motion.host.module_files import FOLDERS_OPTION, ModelFiles

    extra = [tmp_path / "elsewhere", tmp_path / "further"]
    web_ui.cmd_opts.motion_module_dir = str(tmp_path / "flag")
    web_ui.opts.data[FOLDERS_OPTION] = f"{extra[0]}; {extra[1]};"

    def put(folder, name):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        return write_tensors(tmp_path / folder / name, narrow_tensors("v3_sd15_mm"))

    return ModelFiles(), put


FOLDERS = [
    "models/motion",
    "models/motion/below",
    "flag",
    "elsewhere",
    "further",
    "extensions/sd-webui-animatediff/model",
    "extensions/sd-forge-animatediff/model",
]


def test_files_of_all_folders_are_offered_and_found(library):
    files, put = library
    paths = [put(folder, f"mm{number}.safetensors") for number, folder in enumerate(FOLDERS)]
    names = files.names("motion_module")
    assert sorted(name.rpartition("/")[2] for name in names) == [path.name for path in paths]
    assert [files.find("motion_module", path.stem) for path in paths] == paths
    assert sorted(files.find("motion_module", name) for name in names) == sorted(paths)


def test_a_file_that_comes_or_goes_is_seen_at_once(library):
    files, put = library
    assert files.names("motion_module") == []
    path = put("models/motion", "new.safetensors")
    assert files.names("motion_module") == ["new.safetensors"]
    path.unlink()
    assert files.names("motion_module") == []
    with pytest.raises(CheckpointError, match=r"no motion module of this name. Put the file into .*flag"):
        files.find("motion_module", "new.safetensors")
