"""What a data set or a model holds, as JSON-ready values: what `segdeploy inspect` shows."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segdeploy.config.schema import MaskPreprocessing
from segdeploy.config.yaml12 import parse
from segdeploy.data.discover import settle_classes
from segdeploy.data.facts import PictureFacts, masks_of, read_part_facts
from segdeploy.data.findings import Finding, findings_text
from segdeploy.data.masks import unpack
from segdeploy.data.scan import check
from segdeploy.data.split import configured_tables, read_parts
from segdeploy.data.table import PART_WORDS, PARTS, Tables, read_table
from segdeploy.errors import ConfigError, DataError
from segdeploy.model.spec import Part
from segdeploy.run_folder import DESCRIPTION_FILE, find_run
from segdeploy.tables import percent, text_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from segdeploy.bundle import Bundle
    from segdeploy.classes import ClassMap
    from segdeploy.config.schema import RunConfig
    from segdeploy.data.facts import Facts
    from segdeploy.data.table import Sample

WHOLE = "all"
"""The one part of a table that is not split."""
_ROWS = 64


def read_classes(path: Path) -> MaskPreprocessing:
    """A YAML file with the keys of a mask's `preprocessing`: classes, ignore_index and so on.

    Raises:
        ConfigError: not such a file.
    """
    try:
        return MaskPreprocessing.model_validate_json(json.dumps(parse(path.read_text("utf-8"), str(path)).value))
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read: {e.strerror}") from e
    except ValueError as e:
        said = " ".join(str(e).splitlines()[1:3])
        raise ConfigError(
            f"{path}: expected `classes` and `ignore_index` as under a mask's preprocessing: {said}"
        ) from e


def read_tables(paths: Sequence[Path], config: RunConfig | None) -> Mapping[str, Sequence[Sample]]:
    """The samples by part: of one table as it is split, of several tables each as a part of its file's name.

    A table whose name is taken goes by its path.

    Without `paths` the tables are those that the configuration names.

    Raises:
        DataError: see `read_table` and `read_parts`.
    """
    if config is not None and len(paths) < 2:
        tables = configured_tables(config.data, Tables(dataset=paths[0] if paths else None))
        return dict(read_parts(tables, config).items())
    columns = ("image", "mask")
    if config is not None:
        columns = (config.image.column or config.image.name, config.mask.column or config.mask.name)
    if len(paths) > 1:
        parts: dict[str, Sequence[Sample]] = {}
        for path in paths:
            name: str = PART_WORDS.get(path.stem.lower(), path.stem)
            parts[str(path) if name in parts else name] = read_table(path, *columns, None)
        return parts
    samples = read_table(paths[0], *columns)
    if not any(s.part for s in samples):
        return {WHOLE: samples}
    return {part: [s for s in samples if (s.part or WHOLE) == part] for part in (*PARTS, WHOLE)}


def inspect_data(
    parts: Mapping[str, Sequence[Sample]],
    mask: MaskPreprocessing | None = None,
    allow: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Describe samples and everything about them that is wrong or looks wrong.

    Args:
        parts: samples by the name of their part.
        mask: what the pixels mean; None: their values or colours are the classes.
        allow: rules whose findings are known and accepted.
        progress: called with (files done, files in all).

    Returns:
        `parts` (samples, masks, sizes, modes, formats), `encoding`, `classes` (None where they could not be
        settled), `values` (each value or colour with its pixels, masks and class), `findings`.
    """
    facts = {name: some for name, some in read_part_facts(parts, progress).items() if some}
    together = [f for some in facts.values() for f in some]
    classes, said = None, []
    try:
        classes = settle_classes(together, mask or MaskPreprocessing(num_classes="auto"), "masks")
    except DataError as e:
        said.append(Finding("error", "classes", None, str(e)))
    said += check(facts, classes, allow)
    return {
        "parts": {name: _part(some) for name, some in facts.items()},
        "encoding": classes.encoding if classes else None,
        "classes": list(classes.names) if classes else None,
        "values": _values(together, classes),
        "findings": [
            {
                "severity": f.severity,
                "rule": f.rule,
                "file": str(f.file) if f.file else None,
                "message": f.message,
                "same": f.same,
            }
            for f in said
        ],
    }


def _part(facts: Sequence[Facts]) -> dict[str, Any]:
    images = [f.image for f in facts if isinstance(f.image, PictureFacts)]
    masks = [m for _, m in masks_of(facts)]
    return {
        "samples": len(facts),
        "masks": len(masks),
        "sizes": _counted(f"{i.size[1]}x{i.size[0]}" for i in images),
        "images": _counted(f"{i.format} {i.mode}" for i in images),
        "mask_files": _counted(f"{m.format} {m.mode}" for m in masks),
    }


def _counted(words: Any) -> dict[str, int]:
    return dict(Counter(words).most_common())


def _values(facts: Sequence[Facts], classes: ClassMap | None) -> list[dict[str, Any]]:
    masks = [m for _, m in masks_of(facts) if m.format != "JPEG"]
    by_color = classes.encoding == "color" if classes else any(m.kind == "colors" for m in masks)
    pixels: Counter[int] = Counter()
    often: Counter[int] = Counter()
    owner: dict[int, str | None] = {}
    for mask in masks:
        codes = mask.colors() if by_color else mask.codes if mask.kind != "colors" else ()
        often.update(set(codes))
        for code, count in zip(codes, mask.pixels, strict=False):
            pixels[code] += count
        if classes is not None and codes:
            names = (*classes.names, *["ignored"] * (256 - len(classes)), None)  # -1 is the last: nobody's
            owner |= {code: names[label] for code, label in zip(codes, mask.labels(classes).tolist(), strict=True)}
    total = max(1, pixels.total())
    return [
        {
            "value": list(unpack(code)) if by_color else code,
            "class": owner.get(code),
            "pixels": pixels[code],
            "share": pixels[code] / total,
            "masks": often[code],
        }
        for code in sorted(pixels)
    ]


def inspect_model(opened: Bundle) -> dict[str, Any]:
    """Describe a run, a bundle or an ONNX file."""
    spec, file = opened.spec, opened.file
    run = find_run(opened.path)
    parameters = None
    if run is not None and (run / DESCRIPTION_FILE).is_file():
        parameters = json.loads((run / DESCRIPTION_FILE).read_text("utf-8")).get("parameters")
    return {
        "encoder": spec.encoder.model_dump(mode="json"),
        "decoder": spec.decoder.model_dump(mode="json"),
        "parameters": parameters,
        "classes": list(spec.classes.names),
        "input": spec.preprocessing.model_dump(mode="json"),
        "artifacts": [a.model_dump(mode="json") for a in opened.artifacts],
        "verification": list(file.verification) if file else [],
    }


def data_text(about: Mapping[str, Any]) -> str:
    """The result of `inspect_data` for people."""
    rows = [
        [name, str(p["samples"]), str(p["masks"]), *(_several(p[key]) for key in ("sizes", "images", "mask_files"))]
        for name, p in about["parts"].items()
    ]
    said = [text_table(["part", "samples", "masks", "sizes", "images", "mask files"], rows), ""]
    color = any(isinstance(v["value"], list) for v in about["values"])
    shown = sorted(sorted(about["values"], key=lambda v: -v["pixels"])[:_ROWS], key=lambda v: v["value"])
    rows = [
        [
            str(tuple(v["value"])) if color else str(v["value"]),
            v["class"] or "-",
            percent(v["share"]),
            f"{v['masks']:,}",
        ]
        for v in shown
    ]
    said += [text_table(["colour" if color else "value", "class", "pixels %", "masks"], rows)]
    if len(about["values"]) > _ROWS:
        said.append(f"and {len(about['values']) - _ROWS:,} more")
    said += ["", f"masks are read as `encoding: {about['encoding']}`" if about["encoding"] else "no class map fits"]
    for severity in ("error", "warning"):
        found = [
            Finding(severity, f["rule"], Path(f["file"]) if f["file"] else None, f["message"], f["same"])
            for f in about["findings"]
            if f["severity"] == severity
        ]
        if found:
            said += ["", f"{len(found)} {severity}(s)", findings_text(found)]
    return "\n".join(said if about["findings"] else [*said, "nothing looks wrong"])


def _several(counted: Mapping[str, int]) -> str:
    words = [what if len(counted) == 1 else f"{what} ({count})" for what, count in list(counted.items())[:3]]
    return ", ".join(words) + (f" and {len(counted) - 3} more" if len(counted) > 3 else "")


def model_text(about: Mapping[str, Any]) -> str:
    """The result of `inspect_model` for people."""
    size = about["input"]
    parts = ((kind, Part(**about[kind])) for kind in ("encoder", "decoder"))
    said = [f"{kind:<12} {part} {_keys(part.config)}".rstrip() for kind, part in parts]
    if about["parameters"] is not None:
        said.append(f"{'parameters':<12} {about['parameters']:,}")
    said.append(f"{'classes':<12} {len(about['classes'])}: {', '.join(about['classes'])}")
    said.append(f"{'input':<12} {size['height']} x {size['width']} {size['color_order']}, resize {size['resize']}")
    for item in about["artifacts"]:
        mib = item["bytes"] / 2**20
        free = ", any height and width" if "height" in item["about"].get("input", {}).get("shape", ()) else ""
        said.append(
            f"{item['kind']:<12} {item['file']}, {item['precision']}{_for(item)}, {mib:.1f} MiB, "
            f"{item['sha256'][:12]}{free}{_status(item)}"
        )
    for check_ in about["verification"]:
        verdict = "passed" if check_["passed"] else "FAILED"
        said.append(
            f"{'verified':<12} {check_['backend']} {check_['precision']}{_for(check_)}, batch {check_['batch_size']}: "
            f"{verdict}, "
            f"agreement {percent(check_['agreement'], 4)} %, mean IoU {percent(check_['miou'])} %"
        )
    for item in about["artifacts"]:
        if (other := item["about"].get("verified_size")) is not None:
            verdict = "passed" if other["passed"] else "FAILED"
            said.append(
                f"{'verified':<12} {item['kind']} {item['precision']}{_for(item)}, "
                f"at {other['height']} x {other['width']}: {verdict}, agreement {percent(other['agreement'], 4)} %"
            )
    return "\n".join(said)


def _status(item: Mapping[str, Any]) -> str:
    return f", {item['about']['status']}" if item["kind"] == "engine" and "status" in item["about"] else ""


def _for(item: Mapping[str, Any]) -> str:
    return f" for {item['target']}" if item.get("target") else ""


def _keys(config: Mapping[str, Any]) -> str:
    return ", ".join(f"{k}: {v}" for k, v in config.items() if isinstance(v, str | int | float | bool))
