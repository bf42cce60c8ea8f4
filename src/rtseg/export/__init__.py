"""Exports: a network as one file that other engines run, always compared with the network.

A folder appears as a whole, with its report, or not at all.
"""

from __future__ import annotations

from rtseg.export.formats import FORMATS, Format
from rtseg.export.known import identity, remembered
from rtseg.export.writing import export, require_ready
from rtseg.runtimes import Manifest

__all__ = ["FORMATS", "Format", "Manifest", "export", "identity", "remembered", "require_ready"]
