"""Engines that run an exported network: each has the network's own forward."""

from __future__ import annotations

from rtseg.runtimes.manifest import MANIFEST, Manifest, Port, is_export, read_manifest, sha256

__all__ = ["MANIFEST", "Manifest", "Port", "is_export", "read_manifest", "sha256"]
