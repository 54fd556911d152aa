"""Frames between front and worker."""

import asyncio
import socket

from recd_dist.serve.frames import Frame, read_frame, receive_frame, send_frame

FRAME = Frame({"kind": "score", "batch": 7, "name": "Åse"}, [b"ab", b"", b"x" * 300_000])


def test_a_frame_arrives_as_it_was_sent() -> None:
    """header {"kind": ..., "sizes": [2, 0, 300000]}, and the bytes behind it."""

    async def both_ways() -> Frame:
        here, there = socket.socketpair()
        reader, writer = await asyncio.open_unix_connection(sock=here)
        writer.writelines(FRAME.to_bytes())
        received = await asyncio.to_thread(receive_frame, there)
        assert received is not None
        sending = asyncio.to_thread(send_frame, there, received)
        answer, _ = await asyncio.gather(read_frame(reader), sending)
        writer.close()
        assert await asyncio.to_thread(receive_frame, there) is None
        there.close()
        return answer

    answer = asyncio.run(both_ways())

    assert answer.header == FRAME.header
    assert [bytes(part) for part in answer.parts] == list(FRAME.parts)


def test_a_front_that_ends_in_the_middle_of_a_frame() -> None:
    here, there = socket.socketpair()
    with there:
        here.sendall(FRAME.to_bytes()[0])
        here.close()
        assert receive_frame(there) is None
