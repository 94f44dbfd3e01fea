"""Kinds of motion modules from other packages: what is found, what a broken package or a file that lies costs."""

import logging

import pytest
import torch

from motion.checkpoints.file_formats import FILE_FORMATS, recognise
from motion.checkpoints.inspection import inspect_file
from motion.checkpoints.library import ModelLibrary
from motion.checkpoints.motion_file import load_motion_model
from motion.checkpoints.registry import find_custom_formats, known_formats
from motion.errors import CheckpointError
from tests import custom_package
from tests.checkpoints.files import write_tensors
from tests.manifests import manifest_shapes

SITE = "up_blocks.3.motion_modules.1"
CPU = torch.device("cpu")
# A kind of module in few words; each test changes one of them.
CODE = """
import torch
from motion.checkpoints.registry import CustomMotion, MotionFamily
from motion.protocols import BetaSchedule

class Gain(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.channels, self.max_length = channels, 24
        self.gain = torch.nn.Parameter(torch.ones(channels))
        {buffer}

    def forward(self, x, num_frames, scale=1.0):
        return x + scale * self.gain[:, None, None] * x

def make(id="{id}", base="{base}"):
    family = MotionFamily(id, "Gain", base, False, False, BetaSchedule("linear", 0.001, 0.01), 16, 32)
    return CustomMotion("a gain", family, lambda shapes: {matches}, lambda keys: {rename}, lambda site, shapes: {build})

FORMAT = make()
WRONG = 3
"""
WORDS = {
    "buffer": "",
    "id": "gain",
    "base": "sd15",
    "matches": "all(key.startswith('my.') for key in shapes)",
    "rename": "{key[3:]: key for key in keys}",
    "build": "Gain(shapes['gain'][0])",
}


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """`packages(name, point=…, version=…, **words)` installs one."""
    folder, names = tmp_path / "site-packages", []
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def install(name, point="FORMAT", version="1.0", code=None, **words):
        names.append(name)
        written = CODE.format(**{**WORDS, **words}) if code is None else code
        custom_package.install(folder, name, written, {"kind": f"{name}:{point}"}, version)

    yield install
    custom_package.forget(*names)


@pytest.fixture
def gain_file(tmp_path):
    return write_tensors(tmp_path / "gain.safetensors", {f"my.{SITE}.gain": torch.arange(32.0)})


def test_without_packages_the_formats_are_the_built_in_ones():
    assert find_custom_formats() == ()
    assert sorted(known.id for known in known_formats()) == sorted(known.id for known in FILE_FORMATS)


def test_loads(packages, gain_file):
    packages("gains")
    model, family = load_motion_model(gain_file, device=CPU, dtype=torch.float16, formats=known_formats())
    assert (family.id, model.config.max_length) == ("gain", 24)
    assert torch.equal(model.site_modules()[SITE].gain, torch.arange(32.0).half())
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_built_in_formats_keep_their_files(packages):
    """Even from a package that claims every file there is."""
    packages("greedy", matches="True")
    formats = known_formats()
    for name in ("mm_sd_v15_v2", "v2_lora_ZoomIn", "v3_sd15_adapter", "sd15-pruned-core", "mm_sdxl_hs"):
        shapes = manifest_shapes(name)
        assert recognise(shapes, formats) is recognise(shapes)
    assert recognise({f"my.{SITE}.gain": (32,)}, formats).id == "gain"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"code": "import a_package_that_is_not_there"}, "ModuleNotFoundError"),
        ({"code": "raise SystemError('no')"}, "SystemError"),
        ({"point": "MISSING"}, "AttributeError"),
        ({"point": "WRONG"}, "must name a CustomMotion, got int"),
        ({"id": "sd15_v2"}, "'sd15_v2' is taken"),
        ({"id": "animatediff"}, "'animatediff' is taken"),
        ({"id": "auto"}, "'auto' is taken"),
        ({"id": "Not a word"}, "must be a word of a-z"),
        ({"base": "sd3"}, "one of sd15, sdxl, got 'sd3'"),
    ],
)
def test_a_package_that_does_not_work_costs_one_line(packages, caplog, options, message):
    packages("bad", **options)
    packages("good", id="other")
    with caplog.at_level(logging.INFO):
        assert [found.id for found in find_custom_formats()] == ["other"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "bad 1.0" in record.getMessage()
    assert message in record.getMessage()
    assert "\n" not in record.getMessage()


def test_of_two_packages_with_one_id_the_first_by_name_is_taken(packages, caplog):
    packages("second")
    packages("first")
    assert [found.source for found in find_custom_formats()] == ["first 1.0"]
    assert "second 1.0" in caplog.text


def test_a_detector_that_fails_costs_one_line(packages, caplog, gain_file):
    packages("bad", id="bad", matches="shapes['nothing']")
    packages("good")
    formats = known_formats()
    for _ in range(2):
        assert inspect_file(gain_file, formats=formats).family == "gain"
    assert len(caplog.records) == 1
    assert "detector of bad 1.0 fails" in caplog.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"rename": "1 / 0"}, r"gains 1\.0 can't read it \(ZeroDivisionError"),
        ({"rename": "{'x': 'y'}"}, r"KeyError\('y'\)"),
        ({"rename": "{'gain': key for key in keys}"}, "keys such as `mid_block.motion_modules.0.weight`, got `gain`"),
        ({"rename": "{}"}, "one site of the UNet at least"),
        ({"build": "1 / 0"}, "ZeroDivisionError"),
        ({"build": "None"}, "gains 1.0 can't read it"),
        ({"build": "Gain(64)"}, r"`my\..*gain` must have shape \[64\], got \[32\]"),
        ({"buffer": "self.register_buffer('table', torch.ones(3))"}, r"lacks 1 tensors: `up_blocks.*table`"),
        ({"buffer": "self.register_buffer('table', torch.ones(3), persistent=False)"}, "table` is not in the file"),
    ],
)
def test_a_package_that_can_not_read_a_file_is_named(packages, gain_file, words, message):
    packages("gains", **words)
    formats = known_formats()
    report = inspect_file(gain_file, formats=formats)
    assert (report.kind, report.usable) == ("motion_module", False)
    with pytest.raises(CheckpointError, match=message):
        load_motion_model(gain_file, device=CPU, dtype=None, formats=formats)


def test_buffers_on_the_cpu_are_kept(packages, gain_file):
    packages("gains", buffer="self.register_buffer('table', torch.ones(3, device='cpu'), persistent=False)")
    model, _ = load_motion_model(gain_file, device=CPU, dtype=None, formats=known_formats())
    assert torch.equal(model.site_modules()[SITE].table, torch.ones(3))


def test_files_that_lie_are_refused_by_key(packages, tmp_path):
    packages("gains")
    formats = known_formats()
    cases = {
        "nan": ({f"my.{SITE}.gain": torch.full((32,), torch.nan)}, "gain` holds a NaN"),
        "integers": ({f"my.{SITE}.gain": torch.ones(32, dtype=torch.int32)}, "must hold floating-point numbers"),
        "more": ({f"my.{SITE}.gain": torch.ones(32), f"my.{SITE}.x": torch.ones(1)}, "unexpected 1 tensors: `my"),
    }
    for name, (tensors, message) in cases.items():
        path = write_tensors(tmp_path / f"{name}.safetensors", tensors)
        with pytest.raises(CheckpointError, match=message):
            load_motion_model(path, device=CPU, dtype=None, formats=formats)


def test_family_of_a_custom_file_is_its_own(packages, gain_file):
    packages("gains")
    assert inspect_file(gain_file, family="gain", formats=known_formats()).usable
    report = inspect_file(gain_file, family="sd15_v2", formats=known_formats())
    assert "The family of a gain must be gain, got `sd15_v2`" in report.reason


def test_lists_are_made_anew_when_a_package_changes(packages, gain_file, tmp_path):
    cache = tmp_path / "cache.json"

    def listed():
        (entry,) = ModelLibrary([gain_file.parent], cache, known_formats()).entries()
        return entry.inspection.usable

    assert not listed()
    packages("gains", matches="False")
    assert not listed()
    custom_package.forget("gains")
    (tmp_path / "site-packages" / "gains-1.0.dist-info").rename(tmp_path / "old")
    (tmp_path / "old").joinpath("entry_points.txt").unlink()
    packages("gains", version="1.10")
    assert listed()
