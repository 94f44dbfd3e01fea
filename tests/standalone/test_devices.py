"""The embedded host's device and number formats."""

from __future__ import annotations

import pytest
import torch

from motion.models.precision import choose_precision
from motion.standalone import devices, namespace


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
