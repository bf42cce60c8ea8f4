"""Engines that run an exported network, or a network itself: each has the network's own forward."""

from __future__ import annotations

from rtseg.runtimes.machine import processor
from rtseg.runtimes.manifest import MANIFEST, Manifest, Port, is_export, read_manifest
from rtseg.runtimes.network import NETWORKS, deployable, run_network
from rtseg.runtimes.opening import ENGINES, RUNTIMES, installed, open_export
from rtseg.runtimes.runtime import Runtime
from rtseg.runtimes.torch_export import use_threads

__all__ = [
    "ENGINES",
    "MANIFEST",
    "NETWORKS",
    "RUNTIMES",
    "Manifest",
    "Port",
    "Runtime",
    "deployable",
    "installed",
    "is_export",
    "open_export",
    "processor",
    "read_manifest",
    "run_network",
    "use_threads",
]
