from __future__ import annotations

import pytest
import torch

from motion.errors import SettingsError
from motion.models import precision
from motion.models.precision import Precision, choose_precision, cpu_multiplies_bf16


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
