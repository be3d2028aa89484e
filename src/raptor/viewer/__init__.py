"""Videos of rollouts and of environments."""
