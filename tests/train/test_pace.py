from segdeploy.train.pace import Pace


def test_words_and_time_left():
    now = 100.0
    pace = Pace(3, 10, 4, clock=lambda: now)
    pace.begin(1)
    assert pace.note(0, 0.0, 0.0, -1.0) == ""
    now = 120.0  # 5 of 10 steps in 20 s: 20 s to the end of this epoch, twice 40 s for the others
    assert pace.note(5, 0.5, 1e-3, -1.0) == "loss 0.5000  lr 1.0e-03  1.0 images/s  1 min 40 s left"
    now = 150.0  # with the validation the epoch took 50 s
    pace.begin(2)
    now = 160.0
    assert pace.note(5, 0.25, 5e-4, 0.5) == ("loss 0.2500  lr 5.0e-04  best mIoU 0.5000  2.0 images/s  1 min 30 s left")
