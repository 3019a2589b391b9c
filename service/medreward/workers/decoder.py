"""A decoder process: a stranger's file in, pixels into their slot. A crash in an image library ends only this."""

import sys

from medreward.encoding.image import ImageHeader, ImageSpec, decode
from medreward.errors import ItemError
from medreward.workers.children import be_a_child
from medreward.workers.frames import Child, Decode, Decoded, Failure
from medreward.workers.pixels import mapped


def main() -> None:
    socket_fd, shared_fd = be_a_child()
    width, height, fit = int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    spec = ImageSpec(width, height, "stretch" if fit == "stretch" else "pad")
    slots = mapped(shared_fd, (height, width, 3))
    front = Child(socket_fd)
    while True:
        try:
            asked = front.receive()
        except (EOFError, OSError):
            return
        assert isinstance(asked, Decode)
        try:
            header = ImageHeader(asked.kind, asked.width, asked.height)
            slots[asked.slot] = decode(asked.data, header, spec)
        except ItemError as error:
            front.send(Failure(error.code, error.detail, error.field))
        else:
            front.send(Decoded())


if __name__ == "__main__":
    main()
