"""Other projects behind our interfaces: Gymnasium, Isaac Lab, l2f, rsl_rl."""
