"""Draw procedural street scenes: a flat curved road, what stands beside it, who moves on it, and the weather."""
