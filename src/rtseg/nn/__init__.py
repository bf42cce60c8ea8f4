"""Blocks that at least two models or rooms use, one idea per file."""
