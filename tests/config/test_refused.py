import pytest

from segdeploy.config.refused import REFUSED_ENCODERS
from segdeploy.plugin import registry


@pytest.mark.parametrize("name", REFUSED_ENCODERS)
def test_refused_types_are_not_registered_and_the_nearest_is(name):
    registered = registry.catalogue("encoder").plugins
    assert name not in registered
    assert REFUSED_ENCODERS[name].count("\n") == 0
    assert REFUSED_ENCODERS[name].rsplit("nearest: ", 1)[1] in registered
