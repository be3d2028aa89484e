"""`raptor pre-train`: one teacher for each vehicle of a population."""
