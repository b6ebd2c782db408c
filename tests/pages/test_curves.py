import re
import xml.etree.ElementTree as ET

import pytest

from segdeploy.pages.curves import Curve, chart, spark


def paths(drawn):
    """The curves' points by their title."""
    found = {}
    for path in (e for e in ET.fromstring(drawn).iter() if e.tag.endswith("}path")):
        if len(path):
            numbers = list(map(float, re.findall(r"-?[\d.]+", path.get("d"))))
            found[path[0].text] = list(zip(numbers[::2], numbers[1::2], strict=True))
    return found


def test_points_stand_where_the_numbers_say():
    curve = Curve("loss", [(1, 4.0), (2, 2.0), (3, None), (5, 1.0)], 0)
    ((said, points),) = paths(chart("a", "A", [curve], ".1f", top=4.0)).items()
    assert said == "loss: 4.0 → 1.0"
    assert len(points) == 3  # no value, no point
    (x1, y1), (x2, y2), (x5, y5) = points
    assert (x2 - x1) * 4 == pytest.approx(x5 - x1, abs=0.5)
    assert (y2 - y1) / (y5 - y1) == pytest.approx((4 - 2) / (4 - 1), abs=0.01)


def test_axis_goes_from_zero_to_the_top():
    drawn = ET.fromstring(chart("a", "A", [Curve("iou", [(5, 0.0), (6, 1.0)], 0)], ".1f", top=1.0))
    heights = {e.text: float(e.get("y")) - 4 for e in drawn.iter() if e.tag.endswith("}text") and e.text in ("0", "1")}
    ((_, ((_, low), (_, high))),) = paths(ET.tostring(drawn)).items()
    assert (low, high) == (heights["0"], heights["1"])


def test_large_values_and_many_epochs():
    values = [(e, e * 1e5) for e in range(1, 5001)]
    drawn = chart("a", "A", [Curve("x", values, 0)], ".0f")
    ((_, points),) = paths(drawn).items()
    assert len(points) == 300
    left = min(float(e.get("x")) for e in ET.fromstring(drawn).iter() if e.tag.endswith("}text"))
    assert points[0][0] > left
    assert len(drawn) < 8000


def test_one_epoch_is_a_mark_and_none_is_no_picture():
    assert "epoch" in chart("a", "A", [Curve("x", [(1, 0.0)], 0)], ".1f")
    assert chart("a", "A", [Curve("x", [(1, None), (2, float("nan"))], 0)], ".1f") == ""
    assert spark("a", "A", [(1, None)]) == ""


def test_small_curve_says_its_ends():
    drawn = ET.fromstring(spark("a", "IoU of <sky>", [(1, 0.25), (2, None), (4, 0.75)]))
    said = [e.text for e in drawn if e.tag.endswith(("}title", "}desc"))]
    assert said == ["IoU of <sky>", "25.0 % in epoch 1, 75.0 % in epoch 4"]
