"""The reader, which turns a clustered table into batches of unique rows.

Every sample of an epoch is read exactly once.

1. ``order``              the order of an epoch: which row groups are shuffled together, and their sessions.
2. ``intervals``          the numbered samples of an epoch, dealt to ranks and workers; ``position`` of a job.
3. ``table_files``        one row group read from Parquet and checked; ``chunks`` decodes what the ETL has written,
                          ``row_group_columns`` what pyarrow has read.
4. ``transform``          log, clamp, first_x, ... of ``transform_registry``, once per stored row.
5. ``prepared_rows``      stored rows transformed and checked; ``shuffle_window`` knows where those of a window lie.
6. ``batching``           an interval of the epoch as a Batch; ``kernels`` has its loops, which go by addresses.
7. ``worker``             tasks in, batches out; ``transport`` hands them over in one block of shared memory.
8. ``loader``             the loop over batches: worker processes or a ``reading_thread``, and the position.

Instead of 7, ``tier`` has servers that read for trainers in other processes and on other hosts.
``stages`` is a stopwatch for all of them, whose sums ``reader_pace`` adds up.
"""
