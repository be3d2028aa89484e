"""`raptor post-train`, `raptor distill`: one student that does what its teachers do."""
