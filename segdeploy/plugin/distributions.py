"""Installed distributions that offer plugins, read from their metadata; nothing of theirs is imported here."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segdeploy.plugin.hookspecs import GROUP

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

    from packaging.requirements import Requirement

OURS = "segdeploy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Where a plugin comes from."""

    entry_point: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} ({self.entry_point})"

    @property
    def ours(self) -> bool:
        """Whether it is part of segdeploy itself."""
        return self.distribution == OURS


@dataclass(frozen=True, slots=True)
class Offer:
    """An entry point in the group `segdeploy`; None and an `error` where the distribution's list is unreadable."""

    owner: Owner
    point: EntryPoint | None
    distribution: Distribution
    error: str = ""


def offers() -> list[Offer]:
    """Every entry point of the group: ours first, then by name.

    importlib.metadata.entry_points() parses all lists of all distributions and raises when a single one is
    malformed; here only those that speak of segdeploy are parsed, each by itself.
    """
    found: list[Offer] = []
    for dist in _distributions():
        name, version = _named(dist)
        try:
            points = tuple(dist.entry_points.select(group=GROUP))
        except Exception as e:  # whatever the parser stumbles over is the distribution's fault
            owner = Owner(entry_point="entry_points.txt", distribution=name, version=version)
            found.append(Offer(owner, None, dist, f"cannot be read: {e}"))
            continue
        for point in points:
            owner = Owner(entry_point=point.name, distribution=name, version=version)
            found.append(Offer(owner, point, dist))
    # segdeploy's own come first, so that a newcomer, not we, is refused when it takes one of our names; and so
    # that torch, which ours import, is on nobody else's bill.
    return sorted(found, key=lambda o: (not o.owner.ours, o.owner.entry_point, o.owner.distribution))


def _distributions() -> list[Distribution]:
    found: dict[str, Distribution] = {}
    for dist in importlib.metadata.distributions():
        if f"[{GROUP}]" not in _entry_text(dist):
            continue
        name = _named(dist)[0]
        if name == "unknown":
            found[f"unknown {len(found)}"] = dist
        elif canonical(name) not in found and (seen := _first_on_path(name)) is not None:
            found[canonical(name)] = seen
    return list(found.values())


def _first_on_path(name: str) -> Distribution | None:
    """The distribution that imports see: of the first folder on sys.path that has one, the newest.

    Old metadata stay beside or behind new ones after `pip install --target`, a change of installer, or in a
    virtual environment that sees the system's packages. None for what pip left half-removed ("~name").
    """
    same = list(importlib.metadata.Distribution.discover(name=name))
    beside = [d for d in same if d.locate_file("") == same[0].locate_file("")]
    if len(beside) < 2:
        return beside[0] if beside else None
    from packaging.version import InvalidVersion, Version

    def newest(dist: Distribution) -> Version:
        try:
            return Version(_named(dist)[1])
        except InvalidVersion:
            return Version("0.dev0")

    return max(beside, key=newest)


def canonical(name: str) -> str:
    """A distribution's name as package indexes compare it (PEP 503): My.Pack_age is my-pack-age."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _entry_text(dist: Distribution) -> str:
    try:
        return dist.read_text("entry_points.txt") or ""
    except UnicodeDecodeError as e:
        return e.object.decode(errors="replace")


def _named(dist: Distribution) -> tuple[str, str]:
    """Name and version; "unknown" for what the metadata do not say, or when they cannot be read."""
    try:
        about = dist.metadata
        # Python's versions, and importlib_metadata once it is imported, differ in what a missing key or file is.
        name, version = (about[key] if key in about else None for key in ("Name", "Version"))  # noqa: SIM401
        return name or "unknown", version or "unknown"
    except (KeyError, UnicodeDecodeError, AttributeError, TypeError, OSError):
        return "unknown", "unknown"


def refused(offer: Offer) -> str | None:
    """Why an entry point cannot be loaded with this segdeploy, from its distribution's requirements.

    Only the bound on segdeploy is judged before the import: our version is known for certain, and the author says
    which contract the plugin was written for. Other bounds are no proof: opencv-python-headless serves where
    opencv-python is asked for, conda and vendors ship packages without metadata, and a bound may be older than the
    package it keeps out. `unmet` names them once an import has failed.
    """
    version = importlib.metadata.version(OURS)
    for need in _requirements(offer.distribution):
        if canonical(need.name) == OURS and not _allows(need, version):
            said = f"needs {need.name}{need.specifier}, {version} is installed"
            return f"{said}; pip install -U segdeploy {offer.owner.distribution}"
    return None


def unmet(dist: Distribution) -> str | None:
    """The first requirement that is missing or installed in a wrong version, with the pip line; else None."""
    for need in _requirements(dist):
        if canonical(need.name) == OURS:
            continue
        wanted = f"{need.name}{need.specifier}"
        try:
            version = importlib.metadata.version(need.name)
        except importlib.metadata.PackageNotFoundError:
            return f"needs {wanted}, which is not installed; pip install '{wanted}'"
        if version and not _allows(need, version):
            return f"needs {wanted}, {version} is installed; pip install '{wanted}'"
    return None


def _allows(need: Requirement, version: str) -> bool:
    """Whether a version will do; a pre-release also where its release would (0.2.dev3 for >=0.2)."""
    from packaging.version import InvalidVersion, Version

    try:
        candidates = (version, Version(version).base_version)
    except InvalidVersion:
        return True  # not to be compared
    return any(need.specifier.contains(v, prereleases=True) for v in candidates)


def _requirements(dist: Distribution) -> list[Requirement]:
    """What the distribution needs on this machine without any extra; what cannot be understood is passed over."""
    from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        lines = dist.requires or []
    except Exception:  # metadata that cannot be read say nothing
        return []
    needs = []
    for line in lines:
        try:
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                needs.append(need)
        except (InvalidRequirement, UndefinedComparison, UndefinedEnvironmentName):
            continue
    return needs
