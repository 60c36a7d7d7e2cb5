"""Measures of alignment, mixing, classification and reconstruction; none of them knows a model."""
