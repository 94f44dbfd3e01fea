"""Networks that most tests of this folder change and give back; a file with others has its own of the name."""

import pytest

from tests.networks import make_motion, make_unet


@pytest.fixture(scope="module")
def unet():
    return make_unet()


@pytest.fixture(scope="module")
def motion():
    return make_motion()
