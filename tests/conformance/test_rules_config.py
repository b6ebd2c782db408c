"""The ways in which a part may read its keys."""

import pytest
import twins

from segdeploy.conformance.check import check_part, judge_of


def items(config):
    return twins.ByKeyword(**{key: value for key, value in config.model_dump().items() if value is not None})


@pytest.mark.parametrize(
    "build",
    [
        lambda config: twins.ByKeyword(**dict(config)),
        lambda config: twins.ByKeyword(**vars(config)),
        lambda config: twins.ByKeyword(**config.model_dump()),
        lambda config: twins.ByKeyword(**vars(config.model_copy(update={"dropout": 0.2}))),
        lambda config: twins.ByKeyword(**{key: getattr(config, key) for key in twins.Unused.model_fields}),
        items,
    ],
    ids=["dict", "vars", "model_dump", "model_copy", "getattr", "items"],
)
def test_keys_that_are_handed_on_are_read(build):
    (outcome,) = check_part(judge_of(twins.part("encoder", twins.encoder(build, twins.Unused))), KEYS).outcomes
    assert (outcome.state, outcome.detail) == ("passed", "2 keys read")


@pytest.mark.parametrize("build", [lambda config: twins.ByKeyword(width=vars(config)["width"]), twins.build_and_log])
def test_keys_that_are_looked_at_are_not_read(build):
    (outcome,) = check_part(judge_of(twins.part("encoder", twins.encoder(build, twins.Unused))), KEYS).outcomes
    assert (outcome.state, outcome.detail) == ("failed", "never read: dropout")


KEYS = ["config-keys-used"]
