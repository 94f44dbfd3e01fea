"""A UNet's answers on disk: the run that is made again gets them, and no other run does."""

import pytest
import torch
from torch import nn

from motion.injection.call_record import CallRecord, digest_of


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.num_calls = 0

    def forward(self, x, timesteps=None, context=None):
        self.num_calls += 1
        return self.layer(x) * timesteps[:, None]


@pytest.fixture
def network():
    torch.manual_seed(1)
    return Network().requires_grad_(False)


def heun(network, x, num_steps=4, stop_after=None):
    """Heun's method, two calls a step; ends as a killed process does, after so many calls."""
    calls = 0

    def slope(x, level):
        nonlocal calls
        if calls == stop_after:
            raise KeyboardInterrupt
        calls += 1
        return network(x, timesteps=torch.full((len(x),), level))

    for step in range(num_steps):
        first = slope(x, 1 - step / num_steps)
        second = slope(x + first / num_steps, 1 - (step + 1) / num_steps)
        x = x + (first + second) / (2 * num_steps)
    return x


def run(network, folder, x, problems=None, **fields):
    record, replays = CallRecord(folder, (problems if problems is not None else []).append), []
    network.num_calls = 0
    with record.applied(network, lambda: replays.append(1)):
        result = heun(network, x, **fields)
    assert record.num_replayed == len(replays)
    return result, record


@pytest.mark.parametrize("reached", [0, 1, 4, 5, 8])
def test_heun_goes_on_to_the_same_bits_and_the_network_runs_the_rest_only(network, tmp_path, reached):
    x, folder = torch.randn(3, 4), tmp_path / "record"
    whole = heun(network, x)
    if reached < 8:
        with pytest.raises(KeyboardInterrupt):
            run(network, folder, x, stop_after=reached)
    else:
        run(network, folder, x)
    result, record = run(network, folder, x)
    assert torch.equal(result, whole)
    assert (record.num_replayed, network.num_calls) == (reached, 8 - reached)
    assert len(list(folder.iterdir())) == 8
    assert "forward" not in vars(network)
    record.discard()
    assert not folder.exists()


def test_other_latents_get_nothing_and_replace_the_record(network, tmp_path):
    x = torch.randn(3, 4)
    run(network, tmp_path / "record", x)
    other = x.clone()
    other[2, 3] = torch.nextafter(other[2, 3], torch.tensor(9.0))
    result, record = run(network, tmp_path / "record", other)
    assert torch.equal(result, heun(network, other))
    assert record.num_replayed == 0
    _, record = run(network, tmp_path / "record", other)
    assert record.num_replayed == 8


@pytest.mark.parametrize("damage", [b"", b"\x08\x00\x00\x00\x00\x00\x00\x00{}......", b"\xff" * 40])
def test_a_damaged_file_ends_the_replay_there(network, tmp_path, damage):
    x = torch.randn(3, 4)
    whole, _ = run(network, tmp_path / "record", x)
    (tmp_path / "record" / "call_00003.safetensors").write_bytes(damage)
    result, record = run(network, tmp_path / "record", x)
    assert torch.equal(result, whole)
    assert record.num_replayed == 3


def test_a_disk_that_takes_no_more_is_said_once_and_the_run_goes_on(network, tmp_path):
    (tmp_path / "record").write_text("a file where the folder should be")
    problems = []
    result, _ = run(network, tmp_path / "record", torch.ones(3, 4), problems)
    assert torch.equal(result, heun(network, torch.ones(3, 4)))
    (problem,) = problems
    assert "can't be resumed any more" in problem


def test_half_precision_comes_back_to_the_bit(tmp_path):
    network = nn.Identity()
    x = torch.randn(3, 4).bfloat16()
    for _ in range(2):
        record = CallRecord(tmp_path, [].append)
        with record.applied(network, lambda: None):
            assert torch.equal(network(x), x)
    assert record.num_replayed == 1


def test_a_digest_knows_types_shapes_and_places():
    values = [
        torch.zeros(2, 3),
        torch.zeros(3, 2),
        torch.zeros(2, 3, dtype=torch.int32),
        [torch.zeros(2, 3)],
        {"a": torch.zeros(2, 3)},
        (torch.zeros(2, 3), None),
        torch.zeros(0),
        1,
        1.0,
        True,
        "1",
        b"1",
        None,
        ["1", "2"],
        ["12"],
    ]
    assert len({digest_of(value) for value in values}) == len(values)
    assert digest_of({"a": [torch.ones(2), 1]}) == digest_of({"a": (torch.ones(2), 1)})
