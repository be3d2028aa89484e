"""A task and N vehicles put together: batched, Gymnasium and l2f environments."""
