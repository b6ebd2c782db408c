"""The rows of probe_timm.py as one line per model (CSV) and one line per timm file (Markdown)."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from segdeploy.files import replacing

if TYPE_CHECKING:
    from pathlib import Path

Row = dict[str, Any]

COLUMNS = (
    "name", "module", "params_millions", "strides", "channels", "sizes", "trains", "exports", "dynamic", "how", "note",
)  # fmt: skip
RESULTS = ("trains", "exports", "dynamic")
LEGEND = """\
- train: one step on two images, every gradient finite;
- export: opset 20, free batch; onnxruntime on the CPU equals torch at batch 1 and 3;
- free sizes: exported with free height and width too, equal to torch at a smaller size, at a larger one and, where the
  model takes them, at sides that 32 does not divide. Equal is: every map within 1e-3 of its largest value;
- not known: the whole probe of a model ends after 100 s of processor time, and is then done at one size alone, as it is
  at once for larger models of its kind and for those above 400 M parameters; the reasons name those of the kind that
  are known; or the machine's memory was too small;
- sizes: what the model takes in torch, with every level as declared.
""".splitlines()


def entries(described: dict[str, Row], measured: dict[str, Row]) -> list[Row]:
    """One line per described name, in `COLUMNS`; what stands for another model says so under `how`."""
    smallest: dict[str, Row] = {}
    for row in sorted((described[n] for n in measured if "kind" in described.get(n, {})), key=lambda r: r["params"]):
        smallest.setdefault(row["kind"], row)
        smallest.setdefault(_family(row), row)
    known: dict[str, list[str]] = {}  # of models whose kin took too long
    for name in (n for n in measured if "kind" in described.get(n, {}) and measured[n]["dynamic"] != "?"):
        known.setdefault(described[name]["kind"], []).append(f"{measured[name]['dynamic']} in {name}")
    found = []
    for name, about in described.items():
        entry: Row = dict.fromkeys(COLUMNS, "") | {"name": name, "module": about.get("module", "")}
        found.append(entry)
        if "params" not in about:
            entry |= dict.fromkeys(("sizes", *RESULTS), "-") | {"how": "no pyramid", "note": about["error"]}
            continue
        like = about if name in measured else smallest.get(about["kind"]) or smallest.get(_family(about))
        result = measured[like["name"]] if like else dict.fromkeys(RESULTS, "?")
        sizes = result if name in measured else about
        entry |= {
            "params_millions": f"{about['params'] / 1e6:.2f}",
            "strides": " ".join(map(str, about["strides"])),
            "channels": " ".join(map(str, about["channels"])),
            "sizes": sizes.get("sizes", "?"),
            "how": _how(about, like),
        }
        entry |= {key: result[key] for key in RESULTS}
        notes = {"sizes": sizes.get("why_not_any"), "": result.get("error")}
        notes |= {key: result.get(f"{key}_note") for key in RESULTS}
        if result["dynamic"] == "?" and (kin := known.get(about["kind"])):
            notes["of the same kind"] = ", ".join(kin)
        entry["note"] = "; ".join(f"{key}: {text}".removeprefix(": ") for key, text in notes.items() if text)
        entry["reasons"] = {key: result.get(f"{key}_note") or result.get("error") or "" for key in RESULTS}
    return sorted(found, key=lambda e: (e["module"], e["name"]))


def _family(about: Row) -> str:
    """timm file and form of sizes: a kind without its layer classes."""
    return " ".join(about["kind"].split()[:2])


def _how(about: Row, like: Row | None) -> str:
    if like is None:
        return "not probed"
    if like is about:
        return "measured"
    return f"as {like['name']}" + ("" if like["kind"] == about["kind"] else " (other layers)")


def write_table(path: Path, runs: dict[str, Row], described: dict[str, Row], measured: dict[str, Row]) -> None:
    """`path` as Markdown, and a CSV file of the same name beside it."""
    lines = entries(described, measured)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    data = path.with_suffix(".csv")
    for target, content in ((data, text.getvalue()), (path, _markdown(runs, lines, data.name))):
        with replacing(target) as part:
            part.write_text(content, encoding="utf-8")


def _markdown(runs: dict[str, Row], lines: list[Row], data: str) -> str:
    models = [e for e in lines if e["how"] != "no pyramid"]
    how = Counter("inferred" if e["how"].startswith("as ") else e["how"] for e in models)
    modules = sorted({e["module"] for e in lines})
    by_module = {m: [e for e in lines if e["module"] == m] for m in modules}
    others = sum(e["how"].endswith("(other layers)") for e in models)
    counted = (
        f"{len(lines)} names, {len(models)} with a pyramid (rising strides): {how['measured']} measured, "
        f"{how['inferred']} taken to be like the smallest measured model of the same timm file, layer classes and "
        f"form of sizes ({others} of them of other layer classes), {how['not probed']} not probed. "
        f"One line per name, with reasons: [{data}]({data})."
    )
    head = [*_origin(runs), counted, "", *LEGEND, "", "| result | train | export | free sizes |", "|---|--:|--:|--:|"]
    for status in sorted(
        {e[key] for e in models for key in RESULTS}, key=lambda s: (s == "?", s == "no", s != "yes", s)
    ):
        for kind, chosen in (("measured", True), ("inferred", False)):
            part = [e for e in models if (e["how"] == "measured") == chosen]
            counts = [sum(e[key] == status for e in part) for key in RESULTS]
            if any(counts):
                label = f"{status if status != '?' else 'not known'}, {kind}"
                head.append(f"| {label} | " + " | ".join(map(str, counts)) + " |")
    proven = [m for m in modules if _all_measured(by_module[m], "yes")]
    head += [
        "",
        "Free sizes are right in every measured model of: " + ", ".join(f"`{m}`" for m in proven) + ".",
        "",
        "Numbers below count names with a pyramid; the inferred ones are in them.",
        "",
        "| timm file | names | pyramid | measured | train | export | free sizes | sizes | what does not work |",
        "|---|--:|--:|--:|--:|--:|--:|---|---|",
    ]
    return "\n".join(head + [_line(m, by_module[m]) for m in modules]) + "\n"


def _origin(runs: dict[str, Row]) -> list[str]:
    """Title, hardware, versions, command."""
    first = runs[min(runs)]
    machine = first["machine"]
    packages = machine["packages"]
    versions = ", ".join(f"{p} {packages[p]}" for p in ("timm", "torch", "onnx", "onnxscript", "onnxruntime"))
    where = (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, one thread, "
        f"Python {machine['python']}, {versions}. Other work ran beside it; nothing here is a time. Random weights."
    )
    title = f"# timm's models with features_only inside segdeploy, {min(runs)[:10]}"
    return [
        title,
        "",
        where,
        "",
        "```",
        *dict.fromkeys(_portable(run["command"]) for run in runs.values()),
        "```",
        "",
    ]


def _portable(command: str) -> str:
    """The command without the folders of the machine that ran it."""
    return " ".join(PurePath(w).name if w.startswith("/") else w for w in command.split())


def _all_measured(lines: list[Row], status: str) -> bool:
    measured = [e for e in lines if e["how"] == "measured"]
    return bool(measured) and all(e["dynamic"] == status for e in measured)


def _line(module: str, lines: list[Row]) -> str:
    models = [e for e in lines if e["how"] != "no pyramid"]
    sizes = ", ".join(f"{size} ({count})" for size, count in Counter(e["sizes"] for e in models).most_common())
    wrong: Counter[str] = Counter()
    for e in models:
        for key in RESULTS:
            if e[key] not in ("yes", "?"):
                wrong[f"{key.replace('dynamic', 'free sizes')}: {e[key]}, {_short(e['reasons'][key])}"] += 1
    flat = len(lines) - len(models)
    failures = [f"{flat} with levels of one stride"] if flat else []
    failures += [f"{text} ({count})" for text, count in wrong.most_common(4)]
    failures += [f"and {len(wrong) - 4} other reasons"] if len(wrong) > 4 else []
    counts = [sum(e["how"] == "measured" for e in models), *(sum(e[key] == "yes" for e in models) for key in RESULTS)]
    cells = [f"`{module}`", len(lines), len(models), *counts, sizes, "; ".join(failures)]
    return "| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |"


def _short(text: str) -> str:
    return text if len(text) <= 110 else text[:107] + "..."
