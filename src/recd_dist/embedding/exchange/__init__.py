"""The exchange of ids and vectors between ranks, for every sharding type."""
