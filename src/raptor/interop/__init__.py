"""Other projects behind our interfaces: Gymnasium, Isaac Lab, l2f, MuJoCo, rsl_rl."""
