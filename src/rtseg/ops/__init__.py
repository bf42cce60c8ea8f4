"""Functions on tensors, one op per file."""
