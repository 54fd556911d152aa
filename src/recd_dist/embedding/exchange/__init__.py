"""The exchange: unique rows and ids go out and vectors come back, for every sharding type."""
