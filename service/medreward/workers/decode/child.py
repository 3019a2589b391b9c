"""A decoder process: a stranger's file in, pixels into their slot. A crash in an image library ends only this."""

from contextlib import suppress

from medreward.encoding.image import decode
from medreward.errors import ItemError
from medreward.workers.frames import Child, Decode, Decoded, Failure
from medreward.workers.memory import PixelMemory
from medreward.workers.process import be_a_child


def main() -> None:
    socket_fd, shared_fd = be_a_child()
    memory = PixelMemory(shared_fd)
    front = Child(socket_fd)
    while True:
        try:
            asked = front.receive()
        except (EOFError, OSError):
            return
        assert isinstance(asked, Decode)
        try:
            memory.pixels(asked.place)[:] = decode(asked.data, asked.header, asked.spec)
        except ItemError as error:
            front.send(Failure(error.code, error.detail, error.field))
        else:
            front.send(Decoded())


if __name__ == "__main__":
    with suppress(BrokenPipeError):  # the front ended while we had an answer for it
        main()
