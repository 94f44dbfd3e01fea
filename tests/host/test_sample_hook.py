"""The wrappers sit on one request, once, and look its generation up when called."""

import copy

import pytest


class Processing:
    """A request of a host, as far as the wrappers know one."""

    def __init__(self):
        self.calls = []

    def sample(self, x):
        self.calls.append(("host", x))
        return x

    def close(self):
        self.calls.append("closed")


class Recorder:
    def __init__(self, log):
        self.log = log

    def sample(self, original, *args, **kwargs):
        self.log.append("before")
        return original(*args, **kwargs)

    def close(self, original):
        self.log.append("close")
        return original()


@pytest.fixture
def hook(web_ui):
    from motion.host import sample_hook

    return sample_hook


def test_wraps_once_and_follows_the_current_generation(hook):
    p, first, second = Processing(), [], []
    hook.set_generation(p, Recorder(first))
    hook.set_generation(p, Recorder(second))
    assert p.sample(1) == 1
    p.close()
    assert (first, second, p.calls) == ([], ["before", "close"], [("host", 1), "closed"])
    hook.set_generation(p, None)
    p.sample(2)
    assert second == ["before", "close"]


def test_without_a_generation_nothing_is_replaced(hook):
    p = Processing()
    hook.set_generation(p, None)
    assert "sample" not in vars(p)


def test_a_shallow_copy_runs_itself(hook):
    p, log, copied_log = Processing(), [], []
    hook.set_generation(p, Recorder(log))
    copied = copy.copy(p)
    copied.calls = []
    hook.set_generation(copied, Recorder(copied_log))
    copied.sample(3)
    assert (log, copied_log) == ([], ["before"])
    assert (p.calls, copied.calls) == ([], [("host", 3)])


def test_a_neighbour_that_wraps_ours_still_reaches_us(hook):
    p, log = Processing(), []
    hook.set_generation(p, Recorder(log))
    ours = p.sample
    p.sample = lambda x: ours(x + 1)
    assert p.sample(1) == 2
    assert log == ["before"]
