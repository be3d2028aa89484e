"""What every room stands on: errors, files, devices, compilation, processes, plotting style."""
