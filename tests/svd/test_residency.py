import pytest
import torch
from torch import nn

from motion.svd.residency import resident

CPU, META = torch.device("cpu"), torch.device("meta")


class Recorder(nn.Linear):
    """Keeps where it was moved to; stays where it is, for lack of a second device."""

    def __init__(self):
        super().__init__(2, 2)
        self.moves = []

    def to(self, device):
        self.moves.append(device)
        return self


def test_a_network_goes_and_comes_back():
    network = Recorder()
    with resident(network, META) as moved:
        assert moved is network
        assert network.moves == [META]
    assert network.moves == [META, CPU]


def test_it_comes_back_when_the_block_raises():
    network = Recorder()
    with pytest.raises(RuntimeError, match="broken"), resident(network, META):
        raise RuntimeError("broken")
    assert network.moves == [META, CPU]


def test_at_home_nothing_moves():
    network = Recorder()
    with resident(network, CPU):
        pass
    assert network.moves == []
