"""A stand-in for Isaac Lab: the same names, the same order of things, quadrotors in place of its simulator."""
