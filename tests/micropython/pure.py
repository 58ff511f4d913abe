"""Runs in MicroPython: the Python of the package over a core that only writes down what it is told.

Prints what happened as JSON.
"""

import json
import sys

sys.path.insert(0, "/lib")

BLOCK = 512
said = {}


class Core:
    """Stands for the native module. `wants`: what the next steps ask for."""

    def __init__(self):
        self.calls, self.wants, self.sent, self.got = [], [], [], b""

    def state_bytes(self, kind):
        return 64

    def board_open(self, *arguments):
        return 0

    def board_flash(self, state, slots, journals):
        self.models = slots
        return 0

    def board_card(self, state, blocks):
        self.calls.append(("card", blocks))

    def board_start(self, state):
        self.calls.append(("start",))
        return 0

    def board_step(self, state, elapsed):
        return 0

    def board_wants(self, state, words):
        if not self.wants:
            return 0
        for i, word in enumerate(self.wants.pop(0)):
            words[i] = word
        return 1

    def board_block(self, state, index, data):
        if self.writes:
            data[:] = bytes([65 + index]) * BLOCK
        else:
            self.got += data[:2]

    def board_done(self, state, what, code):
        self.calls.append(("done", what, code))

    def board_receive(self, state, data, size):
        self.got += data[:size]
        return 100 - len(self.got)

    def board_transmit(self, state, data):
        if not self.sent:
            return 0
        part = self.sent.pop(0)
        data[: len(part)] = part
        return len(part)

    def board_result(self, state, result):
        return 1

    def board_offer(self, state, frame):
        self.calls.append(("offer", frame[0]))
        return 1


try:
    import drip
except ImportError as error:
    said["without a core"] = str(error)
for name in [name for name in sys.modules if name.startswith("drip")]:
    del sys.modules[name]
core = sys.modules["_drip"] = Core()

from drip.scorer import Result, check, load, names_of  # noqa: E402

import drip  # noqa: E402 - with the core above


def refused(what, *arguments):
    """Return the name and text of what a call raises."""
    try:
        what(*arguments)
    except (ValueError, OSError, drip.Error) as error:
        return [type(error).__name__, str(error)]
    return None


# Scorer
said["names"] = names_of(b"xx\x03cat\x04bird\x00", 2, 10)
result = Result(["cat", "bird"])
result.words[0], result.words[1], result.words[2], result.words[6] = -7, 65535, 1, 2
said["result"] = [result.raw, result.score, result.label, result.keep]
result.words[2], result.words[6] = 5, 0
said["no name"] = [result.label, result.keep]
said["error"] = refused(check, "model refused", -6)


# Log
class Card:
    def __init__(self, block_bytes=BLOCK):
        self.data, self.block_bytes = bytearray(8 * BLOCK), block_bytes

    def readblocks(self, block, buffer):
        buffer[:] = self.data[block * BLOCK : block * BLOCK + len(buffer)]

    def writeblocks(self, block, buffer):
        self.data[block * BLOCK : block * BLOCK + len(buffer)] = buffer

    def ioctl(self, request, argument):
        return {4: len(self.data) // BLOCK, 5: self.block_bytes}[request]


with open("card.img", "wb") as stream:  # noqa: PTH123 - no pathlib there
    stream.write(bytes(8 * BLOCK))
said["log"] = []
for card in (Card(), open("card.img", "r+b")):  # noqa: PTH123, SIM115
    log = drip.Log(card)
    log.write(3, b"z" * BLOCK)
    buffer = bytearray(BLOCK)
    log.read(3, buffer)
    other = bytearray(BLOCK)
    log.read(2, other)
    said["log"].append([log.blocks, buffer == b"z" * BLOCK, other == bytes(BLOCK)])
said["past the end"] = refused(log.read, 8, buffer)
said["large blocks"] = refused(drip.Log, Card(4096))

# Slots
slots = drip.Slots("slots.bin", 1024)
slots.models[1024:1027] = b"new"
slots.journals[2048:2050] = b"ok"
slots.keep(1, 0, 3)
slots.keep(3, 0, 2)
slots.models[0:3] = b"not"
again = drip.Slots("slots.bin", 1024)
said["slots"] = [bytes(again.models[1024:1028]).hex(), bytes(again.journals[2048:2051]).hex()]
said["not kept"] = bytes(again.models[:3]).hex()
said["other slots"] = refused(drip.Slots, "slots.bin", 2048)
said["file"] = len(load("slots.bin"))


# Device
class Uart:
    def __init__(self, data):
        self.data, self.out = data, b""

    def any(self):
        return len(self.data)

    def readinto(self, buffer, size):
        buffer[:size], self.data = self.data[:size], self.data[size:]
        return size

    def write(self, data):
        self.out += bytes(data[:2])
        return 2


class Broken(Card):
    def readblocks(self, block, buffer):
        raise OSError(5)


uart, card, resets = Uart(b"hello"), Card(), []
device = drip.Device(
    log=drip.Log(card), link=drip.Link(uart), slots=slots, reset=lambda: resets.append(1)
)
core.sent = [b"abcde"]
device.step()
said["line"] = [core.got.decode(), uart.out.decode()]
core.wants, core.writes = [[2, 4, 2, 0, 0, 0, 0, 0]], True
device.step()
said["written"] = [card.data[n * BLOCK] for n in range(8)]
core.wants, core.writes, core.got = [[1, 4, 2, 0, 0, 0, 0, 0]], False, b""
device.step()
said["read"] = core.got.decode()
device._log._card = Broken()
core.calls.clear()
core.wants = [[1, 4, 1, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0, 3, 0], [0, 0, 0, 0, 0, 0, 0, 1]]
more = [device.step() for _ in range(4)]
said["more"], said["calls"], said["resets"] = more, list(core.calls), len(resets)
said["kept now"] = bytes(drip.Slots("slots.bin", 1024).models[:3]).hex()


# The whole loop
class Sensor:
    """Gives a frame at every second look."""

    def __init__(self):
        self.looks = 0

    def __call__(self, frame):
        self.looks += 1
        if self.looks % 2:
            return False
        frame[:] = bytes([self.looks])
        return True


drip.Device._needs = lambda self, arena, capture: (setattr(self, "frame_bytes", 1), (16, 16))[1]
core.calls.clear()
drip.run(Sensor(), bytearray(16), steps=5)
said["loop"] = core.calls
print(json.dumps(said))
