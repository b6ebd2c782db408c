import time

import pytest
import torch

from segdeploy.train.profile import Profile


def test_each_mark_takes_the_time_since_the_last_and_nothing_between_steps():
    profile = Profile(torch.device("cpu"))
    for _ in range(2):
        time.sleep(0.02)  # between steps
        profile.begin_step()
        time.sleep(0.01)
        profile.mark("data")
        profile.mark("forward")
        time.sleep(0.03)
        profile.mark("forward")
    profile.add("validation", 0.5)
    found = profile.to_dict()
    assert (found["steps"], found["measured_steps"]) == (2, 2)
    seconds = found["seconds"]
    assert seconds["data"] >= 0.02
    assert seconds["forward"] >= 0.06
    assert seconds["validation"] == 0.5
    assert sum(found["share"].values()) == pytest.approx(1, abs=1e-3)
    assert profile.line().startswith("validation ")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_one_step_in_sixteen_stands_for_all_on_cuda():
    profile = Profile(torch.device("cuda"))
    x = torch.ones(512, 512, device="cuda")
    for _ in range(33):
        profile.begin_step()
        x = x @ x
        profile.mark("forward")
    profile.read()
    found = profile.to_dict()
    assert (found["steps"], found["measured_steps"]) == (33, 2)
    assert found["seconds"]["forward"] >= 0
