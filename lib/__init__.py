"""The thin library of data, models and metrics that the notebooks import."""
