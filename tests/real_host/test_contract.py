"""The whole contract on an installed web UI."""

from __future__ import annotations

import pytest

from tests.contract.clips import ClipContract
from tests.contract.identity import IdentityContract
from tests.contract.listing import ListingContract
from tests.contract.memory import MemoryContract
from tests.contract.motion_loras import MotionLoraContract
from tests.contract.networks import DomainAdapterContract, NetworkContract
from tests.contract.noise import NoiseContract
from tests.contract.refusals import RefusalContract
from tests.contract.rows import RowsContract
from tests.contract.schedule import ScheduleContract
from tests.contract.travel import TravelContract
from tests.contract.windows import WindowContract

pytestmark = pytest.mark.real_host


class TestListing(ListingContract):
    pass


class TestClips(ClipContract):
    pass


class TestSchedule(ScheduleContract):
    pass


class TestIdentity(IdentityContract):
    pass


class TestRows(RowsContract):
    pass


class TestTravel(TravelContract):
    pass


class TestWindows(WindowContract):
    pass


class TestNoise(NoiseContract):
    pass


class TestRefusals(RefusalContract):
    pass


class TestDomainAdapter(DomainAdapterContract):
    pass


class TestNetworks(NetworkContract):
    pass


class TestMemory(MemoryContract):
    pass


class TestMotionLoras(MotionLoraContract):
    pass


def test_seconds_per_step(host, report):
    fields = {"frames": 16, "steps": 10}
    report.host["version"] = host.clip(**fields).info["version"]
    report.figures["seconds per step, 16 frames 64 px"] = round(host.record()["seconds_in_sampling"] / 10, 3)
    host.clip(motion={"motion_scale": 0}, **fields)
    report.figures["the same without the module"] = round(host.record()["seconds_in_sampling"] / 10, 3)
