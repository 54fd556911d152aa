"""The reader: a clustered table becomes batches of unique rows, every sample of an epoch exactly once.

1. ``order``      which windows of row groups an epoch visits, and how sessions are shuffled inside them.
2. ``stream``     the epoch as a stream of numbered samples: shares of ranks and workers, batches, position.
3. ``files``      one row group read from Parquet, checked against manifest and schema.
4. ``transform``  log, clamp, first_x, ... once per stored row.
5. ``window``     the decoded row groups of a window side by side.
6. ``convert``    an interval of the stream as a Batch.
7. ``worker``     tasks in, batches out; ``transport`` hands them over in one block of shared memory.
8. ``loader``     the loop over batches: worker processes or a thread, waiting time, position.
"""
