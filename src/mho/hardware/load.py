"""Presets and TOML files -> :class:`Hardware`, and back."""

import dataclasses
import os
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import tomli_w

from mho.errors import HardwareError, nearest
from mho.hardware.spec import Hardware
from mho.hardware.validate import hardware_from_document

_SUFFIX = ".toml"


def preset_names() -> tuple[str, ...]:
    """Names of the presets inside the package, sorted."""
    folder = resources.files("mho.hardware").joinpath("presets")
    return tuple(sorted(f.name.removesuffix(_SUFFIX) for f in folder.iterdir() if f.name.endswith(_SUFFIX)))


def load_hardware(name_or_path: str | os.PathLike[str]) -> Hardware:
    """The hardware of a preset (``"pcm-hermes"``) or of a TOML file of one's own.

    A string that ends in ``.toml`` or has a folder in it is a path. Keys and units: the README of
    ``mho.hardware``. Raises :class:`HardwareError`, naming file, key, value, cause and fix, for an
    unknown name, an unreadable file, bad TOML, an unknown key, a wrong unit or type, a value out of
    range and for parts that contradict one another. Nothing is converted silently: "6" is not 6.
    """
    text = os.fspath(name_or_path)
    is_path = not isinstance(name_or_path, str) or text.endswith(_SUFFIX) or os.sep in text or "/" in text
    if is_path:
        return _parse(_read(Path(text)), text)
    known = preset_names()
    if text not in known:
        raise HardwareError(
            f"hardware {text!r}: no preset of this name. {nearest(text, known)} Fix: use a preset, or the path of a "
            "TOML file that ends in .toml."
        )
    preset = resources.files("mho.hardware").joinpath("presets", text + _SUFFIX)
    return _parse(preset.read_bytes(), f"presets/{text}{_SUFFIX}")


def dump_hardware(hw: Hardware) -> str:
    """The TOML text of ``hw``; :func:`load_hardware` of it gives an equal description.

    Absent parts (``None``) and empty lists are left out, as TOML has no null.
    """
    return tomli_w.dumps(_document(hw), multiline_strings=False)


def _document(part: Any) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for spec in dataclasses.fields(part):
        value = getattr(part, spec.name)
        if value is None or value == ():
            continue
        table[spec.name] = _plain(value)
    return table


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return _document(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _read(path: Path) -> bytes:
    if not path.is_file():
        cause = "is a folder, not a file" if path.is_dir() else "no such file"
        raise HardwareError(
            f"hardware {str(path)!r}: {cause}. Fix: the path of a TOML file, or a preset: {', '.join(preset_names())}."
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise HardwareError(f"hardware {str(path)!r}: cannot be read ({error}). Fix: check its permissions.") from error


def _parse(content: bytes, file: str) -> Hardware:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise HardwareError(f"{file}: not UTF-8 text ({error}). Fix: save the file as UTF-8.") from error
    if not text.strip():
        raise HardwareError(f"{file}: the file is empty. Fix: start from a preset: {', '.join(preset_names())}.")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise HardwareError(
            f"{file}: not valid TOML: {error}. Fix: correct it (numbers bare, texts in quotes, each [table] once)."
        ) from error
    return hardware_from_document(document, file)
