"""`raptor train-direct`: a policy trained through the simulator's gradient."""
