"""Exports in eight bits that users have made, kept in mind so that the automatic choice finds them.

`<cache>/int8/<hash of the checkpoint>` holds a link to the folder of each.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from rtseg import checkpoint
from rtseg.checkpoint import sha256
from rtseg.data.check_cache import cache_folder
from rtseg.errors import CheckpointError
from rtseg.runtimes import Manifest, read_manifest


def identity(network: Path) -> list[str]:
    """Return the SHA-256 of the files of a checkpoint folder that make a network what it is.

    Raises:
        CheckpointError: A file cannot be read.
    """
    try:
        return [sha256(network / name) for name in (checkpoint.WEIGHTS, checkpoint.CONFIG)]
    except OSError as error:
        raise CheckpointError(
            f"cannot be read ({error})", where=str(network), fix="copy the checkpoint again"
        ) from None


def remember(network: Path, folder: Path, manifest: Manifest) -> None:
    """Remember an export of a checkpoint if it is in eight bits and a cache can be written.

    Args:
        network: The checkpoint folder.
        folder: What was exported from it.
        manifest: What its `manifest.json` says.
    """
    if manifest.precision != "int8":
        return
    target = folder.resolve()
    with contextlib.suppress(OSError, CheckpointError):
        if (links := _links(network)) is not None:
            links.mkdir(exist_ok=True)
            link = links / hashlib.sha256(str(target).encode()).hexdigest()[:16]
            link.unlink(missing_ok=True)
            link.symlink_to(target)


def remembered(network: Path) -> dict[Path, Manifest]:
    """Return the exports of a checkpoint that are still there, the newest first.

    Args:
        network: The checkpoint folder.

    Raises:
        CheckpointError: A file of the checkpoint cannot be read.
    """
    folder = _links(network)
    links = list(folder.iterdir()) if folder is not None and folder.is_dir() else []
    found = {}
    for link in sorted(links, key=lambda link: link.lstat().st_mtime_ns, reverse=True):
        with contextlib.suppress(CheckpointError):  # deleted, or damaged since
            found[link.resolve()] = read_manifest(link)
    return found


def _links(network: Path) -> Path | None:
    cache = cache_folder("int8")
    return cache and cache / hashlib.sha256("".join(identity(network)).encode()).hexdigest()[:24]
