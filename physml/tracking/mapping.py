"""Which columns of a ROOT tree hold what: our names, and a mapping of them to the file's.

Imports nothing heavy, so that a command line can be checked with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from physml.errors import ConfigError

POINT = ("x", "y", "z")
LAYER = ("volume", "layer", "module", "geometry")
PARTICLE = ("px", "py", "pz", "charge")
START = ("vx", "vy", "vz", "pdg")
ASSUMED = {
    ("vx", "vy", "vz"): "taken as 0, as if on the beam, so that products of decays pass as targets",
    ("pdg",): "taken as 0, so that electrons pass as targets",
}
WITHOUT = "read without truth (--no-truth)"  # a remedy
KNOWN = (*POINT, "event", *LAYER, "hit_id", "particle", *PARTICLE, *START)


def parse_mapping(text: str, where: str = "mapping") -> dict[str, str]:
    """Mapping of our names to columns from text such as "x=hit_x,y=hit_y,z=hit_z,event=evt".

    Our names: x, y, z, event, volume, layer, module, geometry, hit_id, particle, and of that
    particle px, py, pz, charge, vx, vy, vz, pdg.

    Raises:
        ConfigError: a part without "=", or a name given twice.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        name, equals, column = (piece.strip() for piece in part.partition("="))
        if not (name and equals and column):
            raise ConfigError(where, f"{part!r} is not name=column", "write x=hit_x,y=hit_y,...")
        if name in found:
            raise ConfigError(where, f"names {name!r} twice", "name it once")
        found[name] = column
    return found


def check_mapping(mapping: Mapping[str, str], truth: bool, where: str = "mapping") -> None:
    """Refuse unknown names and incomplete sets; `where` begins the error.

    Raises:
        ConfigError: see there.
    """
    unknown = [name for name in mapping if name not in KNOWN]
    if unknown:
        raise ConfigError(where, f"{unknown[0]!r} is unknown", f"known: {', '.join(KNOWN)}")
    needs: list[tuple[bool, Iterable[str]]] = [
        (True, POINT),
        ("volume" in mapping or "layer" in mapping, ("volume", "layer")),
        (truth and "particle" in mapping, PARTICLE),
        (any(name in mapping for name in (*PARTICLE, *START)), ("particle",)),
    ]
    for needed, names in needs:
        missing = [name for name in names if name not in mapping]
        if needed and missing:
            remedy = f"name the column of {missing[0]}"
            remedy += f", or {WITHOUT}" if missing[0] in PARTICLE else ""
            raise ConfigError(where, f"lacks {', '.join(missing)}", remedy)
    if "geometry" in mapping and ("layer" in mapping or "module" in mapping):
        what = "gives layers and modules twice"
        raise ConfigError(where, what, "leave out geometry, or volume, layer and module")
