"""What a host's process holds after many clips."""

from __future__ import annotations

from pathlib import Path

import pytest

CLIPS = 20
FAILING = {3: {"raise_in_unet_call": 1}, 7: {"raise_in_vae": True}, 11: {"raise_in_unet_call": 2}}
FAILING |= {15: {"raise_in_unet_call": 1}, 18: {"raise_in_vae": True}}
MODULES = ("v1", "v2", "v3")
# Half of what there would be if each failing clip kept its module of 17 MiB. A fresh A1111 grows by 27; one that has
# made some 60 pictures doesn't grow.
MOST_GROWTH_MIB = 40


def anonymous_memory_mib(host) -> float:
    """What the host's process has allocated: RssAnon, without mapped files."""
    status = Path(f"/proc/{host.pid}/status")
    if not status.exists():
        pytest.skip("this system has no /proc")
    return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith("RssAnon:"))


def press(host, elem_id: str) -> None:
    """What the page sends for a click on a button that has no inputs."""
    page = host.get("/config")
    button = next(part["id"] for part in page["components"] if part["props"].get("elem_id") == elem_id)
    targets = [dependency["targets"] for dependency in page["dependencies"]]
    clicks = [index for index, pairs in enumerate(targets) if [button, "click"] in pairs or button in pairs]
    answer = host.post("/run/predict", {"fn_index": clicks[0], "data": [], "session_hash": "contract"})
    assert answer.status == 200, answer.body


class MemoryContract:
    def test_the_unload_button_frees_the_module_and_the_next_clip_reads_it_again(self, host):
        before = host.clip().files
        assert host.get("/contract/kept")["modules"] == 1
        press(host, "txt2img_motion_unload")
        assert host.get("/contract/kept")["modules"] == 0
        assert host.clip().files == before

    @pytest.mark.thorough
    def test_twenty_clips_of_which_five_fail_leave_no_memory_behind(self, host, record_property):
        def run(probes) -> None:
            for index, probe in enumerate(probes):
                answer = host.clip(module=MODULES[index % len(MODULES)], frames=4, probe=probe)
                assert answer.status == (500 if probe else 200), answer.body
            host.post("/contract/unload")

        run([{}, {}, {}, *FAILING.values()])  # what a first time leaves behind for good, such as the allocator's arenas
        before = anonymous_memory_mib(host)
        run([FAILING.get(index, {}) for index in range(CLIPS)])
        growth = anonymous_memory_mib(host) - before
        record_property("RssAnon after 20 clips and unloading, MiB more", round(growth, 1))
        assert growth < MOST_GROWTH_MIB
