"""The contract on the embedded host: the quick part always, all of it with `--thorough`."""

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
from tests.contract.server import Launch, make_data_dir, running
from tests.contract.travel import TravelContract
from tests.contract.windows import WindowContract


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedded")
    make_data_dir(folder / "data", with_extension=False, text_layers=2)
    with running(Launch.embedded(), folder / "data", folder / "host.log") as host:
        yield host


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
