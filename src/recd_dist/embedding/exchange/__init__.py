"""The exchange: unique rows and ids go out, vectors come back, for every sharding type."""
