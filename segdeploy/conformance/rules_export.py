"""Rules about the ONNX file: it can be written, and onnxruntime gives torch's labels with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch

from segdeploy.conformance.rule import BrokenError, Found, Rule, SkippedError
from segdeploy.model.segmenter import Deployed
from segdeploy.runtime.ort_runner import import_onnxruntime

if TYPE_CHECKING:
    from segdeploy.conformance.subject import Subject

AGREEMENT = 0.999
"""Share of equal pixels; summation orders differ, and a near-tie may fall to the other side."""


def check_export(subject: Subject) -> Found:
    """Static size, dynamic batch."""
    model = onnx.load_from_string(subject.graph)
    size = "x".join(map(str, subject.sizes[-1][::-1]))
    return Found(
        f"{len(model.graph.node)} nodes at {size}", {"nodes": len(model.graph.node), "bytes": len(subject.graph)}
    )


def check_labels(subject: Subject) -> Found:
    """onnxruntime against torch, at the export's size, one image and three."""
    return _agree(subject, subject.graph, (subject.sizes[-1],))


def check_dynamic_size(subject: Subject) -> Found:
    """onnxruntime against torch, at sizes that were not the example's."""
    if not getattr(subject.half(subject.model), "dynamic_size", False):
        raise SkippedError("it does not promise dynamic_size")
    graph = subject.free_graph
    if graph is None:
        raise SkippedError(f"{subject.partner[0]} does not promise dynamic_size; name a partner that does with --with")
    return _agree(subject, graph, subject.sizes[1:])


def _agree(subject: Subject, graph: bytes, sizes: tuple[tuple[int, int], ...]) -> Found:
    """The labels of one image and of three at each size; BrokenError below AGREEMENT."""
    ort = import_onnxruntime()
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 4
    with subject.blame("onnxruntime cannot load the graph"):
        session = ort.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])
    reference = Deployed(subject.model, subject.spec(sizes[0]).preprocessing).eval()
    random = np.random.default_rng(0)
    worst = 1.0
    for size in sizes:
        for batch in (1, 3):
            where = f"{batch} x {size[1]}x{size[0]}"
            image = random.integers(0, 256, (batch, *size, 3), dtype=np.uint8)
            with subject.blame(f"onnxruntime, {where}"):
                mask = session.run(["mask"], {"image": image})[0]
            with torch.no_grad(), subject.blame("forward"):
                expected = reference(torch.from_numpy(image)).numpy()
            if mask.shape != expected.shape:
                raise BrokenError(f"{where}: torch gives labels of shape {expected.shape}, onnxruntime {mask.shape}")
            same = float((mask == expected).mean())
            if same < AGREEMENT:
                raise BrokenError(f"{where}: {same:.2%} of the labels agree with torch's", agreement=same)
            worst = min(worst, same)
            if batch > 1 and len(np.unique(expected)) == 1:
                raise BrokenError(f"{where}: every pixel has the same class; do the maps depend on the image?")
    return Found(f"{worst:.3%} of the labels agree", {"agreement": worst})


RULES = (
    Rule(
        name="export",
        kinds=("encoder", "decoder"),
        sentence="torch exports the model to ONNX with a dynamic batch.",
        fix="In forward, branch on no tensor's value, and turn no tensor into a Python number (item, int, float, "
        "tolist).",
        check=check_export,
        needs=("deterministic",),
    ),
    Rule(
        name="labels",
        kinds=("encoder", "decoder"),
        sentence="onnxruntime gives torch's labels at the exported size, for one image and for three.",
        fix="Compare node by node where the two part; a branch on is_exporting, or a batch size taken from the "
        "example, is the usual cause.",
        check=check_labels,
        needs=("export",),
    ),
    Rule(
        name="dynamic-size",
        kinds=("encoder", "decoder"),
        sentence="Where dynamic_size is promised: exported with free height and width, the labels are torch's at "
        "sizes that were not the example's.",
        fix="Compute no kernel, stride or grid from the example's size, and let no branch hang on it. A fixed-kernel "
        "adaptive pool (adaptive_avg_pool2d to more than 1x1) exports without an error and is wrong "
        "elsewhere; pool by matrices made from the shape, or take the promise back.",
        check=check_dynamic_size,
        needs=("labels",),
    ),
)
