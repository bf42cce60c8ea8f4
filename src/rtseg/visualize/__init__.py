"""Pictures, charts, outlines, image files and report pages; needs only NumPy and Pillow."""
