"""Errors, files, devices, compilation, processes, plotting style: what knows nothing of quadrotors."""
