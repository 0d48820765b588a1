"""The folder of a run."""

from pathlib import Path

from mho.errors import CheckpointError


def make_folder(path: Path) -> Path:
    """``path``, made with its parents. Raises :class:`CheckpointError` where that is not possible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be made: {error.strerror}. Way out: --out with a folder that you may write to."
        ) from error
    return path
