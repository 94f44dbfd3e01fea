from __future__ import annotations

import pytest
import torch

from motion.errors import SettingsError
from motion.models.precision import Precision, choose_precision, cpu_multiplies_bf16
from motion.standalone import devices, namespace, precision


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_precision_can_be_forced(name, dtype):
    chosen = choose_precision(name, device="cpu")
    assert chosen == Precision(torch.device("cpu"), dtype, torch.float32)


def test_vae_can_be_forced():
    assert choose_precision("fp32", device="cpu", vae="bf16").dtype_vae == torch.bfloat16


@pytest.mark.parametrize(("flags", "dtype"), [({"amx_bf16"}, torch.bfloat16), ({"avx512f"}, torch.float32)])
def test_cpu_takes_bf16_where_it_multiplies_it_in_hardware(monkeypatch, flags, dtype):
    monkeypatch.setattr(precision, "_cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr(precision, "_torch_reports_bf16", lambda: False)
    assert choose_precision("auto", device="cpu").dtype == dtype


def test_cpu_flags_are_read_without_torch_s_private_checks(monkeypatch):
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert isinstance(cpu_multiplies_bf16(), bool)


def test_gpu_takes_fp16(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_precision() == Precision(torch.device("cuda"), torch.float16, torch.float32)


def test_unknown_names_and_missing_devices_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match="`precision` must be one of fp32, bf16, fp16, got 'fp8'"):
        choose_precision("fp8")
    with pytest.raises(SettingsError, match="`device` must be one of auto, cpu, cuda, mps, got 'tpu'"):
        choose_precision(device="tpu")
    with pytest.raises(SettingsError, match="torch finds none here"):
        choose_precision(device="cuda")


@pytest.mark.parametrize(
    ("arguments", "dtype"),
    [
        (["--no-half"], torch.float32),
        (["--precision", "full"], torch.float32),
        (["--precision", "half"], torch.float16),
    ],
)
def test_command_line_chooses(tmp_path, arguments, dtype):
    with namespace.installed(["--data-dir", str(tmp_path), "--use-cpu", "all", *arguments]):
        assert (devices.device, devices.dtype, devices.dtype_unet) == (torch.device("cpu"), dtype, dtype)


def test_autocast_only_outside_fp32(tmp_path):
    with namespace.installed(["--data-dir", str(tmp_path)]):
        devices.configure(choose_precision("fp32", device="cpu"))
        with devices.autocast():
            assert not torch.is_autocast_enabled("cpu")
        devices.configure(choose_precision("bf16", device="cpu"))
        with devices.autocast():
            assert torch.is_autocast_enabled("cpu")
            with devices.without_autocast():
                assert not torch.is_autocast_enabled("cpu")
        with devices.autocast(disable=True):
            assert not torch.is_autocast_enabled("cpu")


def test_nan_is_reported_with_its_network(tmp_path):
    with namespace.installed(["--data-dir", str(tmp_path)]) as host:
        broken = torch.full((1, 4, 2, 2), float("nan"))
        with pytest.raises(devices.NansException, match=r"Expected numbers from the VAE, got NaN: float32") as caught:
            devices.test_for_nans(broken, "vae")
        assert caught.value.status_code == 500
        devices.test_for_nans(torch.zeros(1), "unet")
        host.cmd_opts.disable_nan_check = True
        devices.test_for_nans(broken, "unet")
