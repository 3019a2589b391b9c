"""Child processes by themselves: what becomes of them when the front ends first."""

import os
import socket
import subprocess
import sys

import pytest

import pictures
from commands import CLEAN
from medreward.backends.fake import FAKE_MANIFEST
from medreward.encoding.sizes import ImageHeader, ImageSpec
from medreward.settings import Settings
from medreward.workers.frames import Decode, Load, encode
from medreward.workers.memory import Place, anonymous_memory

LOAD = Load(Settings(model="fake").model_dump(mode="json"), FAKE_MANIFEST.model_dump(mode="json"), None, 0)
DECODE = Decode(Place(0, 8, 8), ImageHeader("png", 64, 48), ImageSpec(8, 8), pictures.png(0))


@pytest.mark.parametrize(
    ("module", "asked"), [("medreward.workers.device.child", LOAD), ("medreward.workers.decode.child", DECODE)]
)
def test_a_child_whose_front_ended_before_the_answer_ends_without_a_word(module: str, asked: Load | Decode) -> None:
    ours, theirs = socket.socketpair()
    memory = anonymous_memory(4096)
    fds = (theirs.fileno(), memory)
    with theirs:
        command = [sys.executable, "-m", module, *map(str, fds)]
        child = subprocess.Popen(command, pass_fds=fds, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=CLEAN)
    os.close(memory)
    with ours:
        ours.sendall(encode(asked))
    written, _ = child.communicate(timeout=60)
    assert (child.returncode, written) == (0, b"")
