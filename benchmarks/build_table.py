"""Builds every encoder x decoder of the contract suite with TensorRT for RTX, which needs no GPU; one line for each.

    pip install "segdeploy[all-cpu,rtx]" pytest
    python benchmarks/build_table.py -o builds.jsonl --precision fp32,fp16,int8
    python benchmarks/build_table.py -o builds.jsonl --write benchmarks/results/tensorrt_rtx_builds

Models are small and never trained, with the keys of tests/contract, at 256 x 256. Each graph is asked of the lint and
of the parser, then built twice: fixed (batch 1), and with what the model leaves free (the batch, 1 to 8, tuned for 1;
height and width too, from half to one and a half, where encoder and decoder promise to work so). Rows are appended as
they are made, and those that are there already are left out, so it can be stopped and gone on with. Engines are not
kept, and nothing is run on hardware. `--write` makes the table from the rows.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import onnx

TESTS = Path(__file__).parents[1] / "tests"
SIDE = 256
BATCH = 8
COLUMNS = (
    "encoder decoder precision shapes parser lint_errors lint_warnings agree nodes onnx_mib build_s engine_mib said"
)


def pairs(suite: Any) -> list[tuple[str, str]]:
    """The contract suite's parts and pairs, then all others; last, with one decoder, what is others made deeper."""
    from segdeploy.plugin import registry

    skipped = {"encoder factory", *suite.DEEPER}
    encoders = [name for name in registry.catalogue("encoder").plugins if f"encoder {name}" not in skipped]
    decoders = [name for name in registry.catalogue("decoder").plugins if name != "logits"]
    first = [(encoder, "fpn") for encoder in encoders] + [pair for pair in suite.PAIRS if pair[1] in decoders]
    deeper = sorted(name.removeprefix("encoder ") for name in suite.DEEPER)
    rest = [(encoder, decoder) for decoder in sorted(decoders) for encoder in encoders]
    return list(dict.fromkeys([*first, *rest, *((encoder, "fpn") for encoder in deeper)]))


def rows_of(suite: Any, encoder: str, decoder: str, precisions: list[str], folder: Path) -> list[dict[str, Any]]:
    """The rows of one pair."""
    from segdeploy.conformance.find import parts
    from segdeploy.conformance.subject import Subject
    from segdeploy.data.natural import natural_images
    from segdeploy.errors import SegdeployError
    from segdeploy.model.segmenter import of_fixed_size

    part = parts(encoder, "encoder")[0]
    subject = Subject(part, suite.SMALL.get(f"encoder {encoder}", {}), decoder)
    try:
        multiple = int(getattr(subject.model.encoder, "size_multiple", 1))
        side = -(-SIDE // multiple) * multiple
        free = not of_fixed_size(subject.model)
        graphs = {"fixed": subject.export((side, side))}
        graphs["free"] = subject.export((side, side), dynamic_size=True) if free else graphs["fixed"]
    except SegdeployError as e:
        return [{"encoder": encoder, "decoder": decoder, "precision": p, "said": str(e)} for p in precisions]
    found = []
    images = natural_images(2, (side, side))
    for precision in precisions:
        for shapes, exported in graphs.items():
            row = {"encoder": encoder, "decoder": decoder, "precision": precision}
            row["shapes"] = f"1x{side}x{side}" if shapes == "fixed" else f"1-{BATCH}x{side}x{side}"
            heights = (side, side, side)
            if shapes == "free" and free:
                low = max(1, side // 2 // multiple) * multiple
                heights = (low, side, 2 * side - low)
                row["shapes"] = f"1-{BATCH}x{low}-{heights[2]}x{low}-{heights[2]}"
            model = in_precision(onnx.load_from_string(exported), precision, images)
            batches = (1, 1, 1) if shapes == "fixed" else (1, 1, BATCH)
            row |= ask_and_build(model, [(b, h, h, 3) for b, h in zip(batches, heights, strict=True)], folder)
            found.append(row)
    return found


def in_precision(model: onnx.ModelProto, precision: str, images: Any) -> onnx.ModelProto:
    """The graph that TensorRT reads for a precision."""
    if precision == "fp16":
        from segdeploy.export.precision import to_fp16

        return to_fp16(model, list(images[:, None]))[0]
    if precision == "int8":
        from segdeploy.export.graphs import rest_in_fp16
        from segdeploy.export.quantize import quantize

        pictures = list(images[:, None])
        found = quantize(model, pictures, targets=["tensorrt"], min_agreement=0)["tensorrt"]
        return rest_in_fp16(found, pictures, ())[0]
    return model


def ask_and_build(model: onnx.ModelProto, shapes: list[tuple[int, ...]], folder: Path) -> dict[str, Any]:
    """What lint and parser say of a graph, and what its engine takes."""
    from segdeploy.export.lint import lint
    from segdeploy.export.parser_verdict import ask_parser
    from segdeploy.runtime import trt

    rtx = trt.load(trt.RTX)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    findings = lint(model, "RTX")
    errors = [f for f in findings if f.severity == "error"]
    verdict = ask_parser(path, rtx)
    row = {
        "parser": "takes it" if verdict.accepted else "refuses it",
        "lint_errors": len(errors),
        "lint_warnings": len(findings) - len(errors),
        "nodes": len(model.graph.node),
        "onnx_mib": round(path.stat().st_size / 2**20, 2),
        "said": "; ".join([*map(str, verdict.refusals[:2]), *sorted({f.row for f in findings})]),
    }
    if verdict.accepted:
        started = time.perf_counter()
        size, reason = build(rtx, path, shapes)
        row |= {"build_s": round(time.perf_counter() - started, 2), "engine_mib": size and round(size / 2**20, 2)}
        row["said"] = "; ".join(filter(None, [reason, str(row["said"])]))
    row["agree"] = bool(errors) != bool(row.get("engine_mib"))
    return row


def build(rtx: Any, path: Path, shapes: list[tuple[int, ...]]) -> tuple[int, str]:
    """(bytes of the engine, reason): 0 bytes and a reason where it could not be built."""
    module, builder = rtx.module, rtx.builder()
    with rtx.listening() as heard:
        network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = module.OnnxParser(network, rtx.logger)
        if not parser.parse_from_file(str(path)):
            return 0, heard.reason
        config = builder.create_builder_config()
        config.clear_flag(module.BuilderFlag.TF32)
        profile = builder.create_optimization_profile()
        profile.set_shape("image", *shapes)
        config.add_optimization_profile(profile)
        plan = builder.build_serialized_network(network, config)
        return (plan.nbytes, "") if plan is not None else (0, heard.reason)


def write(rows: list[dict[str, Any]], stem: Path) -> None:
    """The table as CSV, and its sums as Markdown beside it."""
    from segdeploy.environment import describe_machine
    from segdeploy.runtime import trt

    columns = COLUMNS.split()
    with stem.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({c: row.get(c, "") for c in columns} for row in rows)
    asked = [row for row in rows if "parser" in row]
    machine = describe_machine()
    precisions = ",".join(dict.fromkeys(row["precision"] for row in asked))
    pairs_built = len({(row["encoder"], row["decoder"]) for row in asked})
    text = [
        "# Engines of TensorRT for RTX, built without a GPU",
        "",
        f"TensorRT for RTX {trt.load(trt.RTX).version}; {json.dumps(machine)}. Other work ran beside it: the times",
        "are for orientation. Nothing here was run on hardware. Small models, never trained, at 256 x 256 (or the next",
        "size that the encoder takes), with the keys of tests/contract.",
        "",
        "```",
        f"python benchmarks/build_table.py -o builds.jsonl --precision {precisions}",
        f"python benchmarks/build_table.py -o builds.jsonl --write benchmarks/results/{stem.name}",
        "```",
        "",
        f"{pairs_built} pairs of encoder and decoder, those of tests/contract first. A line for each engine, with what",
        f"lint and parser said: [{stem.name}.csv]({stem.name}.csv).",
        "",
        "| precision | shapes | graphs | parser takes | engines | lint agrees | build s (median, max) | engine MiB |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for precision in dict.fromkeys(row["precision"] for row in asked):
        for kind in ("fixed", "free batch", "free size"):
            some = [row for row in asked if row["precision"] == precision and kind_of(row["shapes"]) == kind]
            built = sorted(row["build_s"] for row in some if row.get("engine_mib"))
            if not some:
                continue
            sizes = sorted(row["engine_mib"] for row in some if row.get("engine_mib"))
            times = f"{built[len(built) // 2]:.1f}, {built[-1]:.1f}" if built else "-"
            spread = f"{sizes[0]:.1f} to {sizes[-1]:.1f}" if sizes else "-"
            takes, agree = sum(row["parser"] == "takes it" for row in some), sum(row["agree"] for row in some)
            text.append(
                f"| {precision} | {kind} | {len(some)} | {takes} | {len(built)} | {agree} | {times} | {spread} |"
            )
    unlike = [row for row in asked if not row.get("engine_mib") or not row["agree"]]
    text += ["", "Not built, or built against the lint's word:" if unlike else "Each of them built."]
    text += [f"- {r['encoder']} + {r['decoder']}, {r['precision']}, {r['shapes']}: {r['said']}" for r in unlike]
    apart = [row for row in rows if "parser" not in row]
    if apart:
        text += ["", "Pairs that do not fit each other:"]
        text += [f"- {e} + {d}: {s}" for e, d, s in sorted({(r["encoder"], r["decoder"], r["said"]) for r in apart})]
    stem.with_suffix(".md").write_text("\n".join([*text, ""]), encoding="utf-8")


def kind_of(shapes: str) -> str:
    """Which sides a profile leaves free."""
    batch, height, _ = shapes.split("x")
    return "free size" if "-" in height else "free batch" if "-" in batch else "fixed"


def main() -> None:
    """Build what is missing, or write the table."""
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the rows, one JSON object a line")
    parser.add_argument("--precision", default="fp32", help="of fp32, fp16, int8, joined by commas")
    parser.add_argument("--write", type=Path, help="write the table to this name, without an ending, and stop")
    arguments = parser.parse_args()
    lines = arguments.output.read_text("utf-8").splitlines() if arguments.output.is_file() else []
    rows = [json.loads(line) for line in lines]
    if arguments.write:
        write(rows, arguments.write.with_suffix(""))
        return
    sys.path[:0] = [str(TESTS / "contract"), str(TESTS / "conformance")]
    import test_parts as suite

    os.environ["SEGDEPLOY_FACTORIES"] = suite.SMALL["encoder factory"]["function"]
    done = {(row["encoder"], row["decoder"], row["precision"]) for row in rows}
    todo = pairs(suite)
    for i, (encoder, decoder) in enumerate(todo):
        missing = [p for p in arguments.precision.split(",") if (encoder, decoder, p) not in done]
        if not missing:
            continue
        with tempfile.TemporaryDirectory() as folder:
            new = rows_of(suite, encoder, decoder, missing, Path(folder))
        with arguments.output.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in new)
        print(f"{i + 1}/{len(todo)} {encoder} + {decoder}: {new[0].get('build_s', new[0]['said'])}", flush=True)


if __name__ == "__main__":
    main()
