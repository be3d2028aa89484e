"""Videos of flights and of environments."""
