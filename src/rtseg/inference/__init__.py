"""From an image to a result."""
