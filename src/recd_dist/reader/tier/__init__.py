"""The reader tier: servers that read batches for trainers in other processes and on other hosts, over Arrow Flight.

::

    trainer, rank r                                         recd reader
    stream 0  tasks, those after them   --- do_get --->     session: a BatchReader, two batches read ahead
              aligned block             <-- record batches  tensors as Arrow buffers, not copied
    stream 1  ...                                           another session, here or on another server

A task (epoch, intervals) says all about a batch, so that any server can answer it and a server knows no position. The
trainer deals tasks by arithmetic, as it does to worker processes. A task whose answer did not arrive whole is sent
again, to the same server or to another one: nothing is lost and nothing is trained twice. A server on the host of its
trainer writes batches into memory that the trainer lends it.

Server: ``served_tables``, ``sessions``, ``flight_service``, ``served_counts``. Client: ``server_choice``,
``server_connection``, ``remote_stream``, ``remote_reader``, ``blocks``. Both: ``messages``, ``arrow_batches``,
``lent_memory``, ``server_address``, ``announcements``, ``server_access``.
"""
