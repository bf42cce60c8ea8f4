"""Real-time image segmentation of street scenes."""
