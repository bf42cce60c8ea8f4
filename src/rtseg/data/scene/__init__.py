"""Draw procedural street scenes: a curved road, what stands and moves there, the weather."""
