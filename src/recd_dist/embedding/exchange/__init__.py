"""The exchange: unique rows and ids out, vectors back, for every sharding type; ``embedding/sharded.py`` runs it."""
