"""Metrics that accumulate over a whole data set."""
