"""Metrics that accumulate over a whole data set: the same scores from one process or many."""
