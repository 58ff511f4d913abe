"""The whole device: score, keep on a card, serve a host. The same protocol as the C firmware."""

import sys
import time
from array import array

from drip import native
from drip.scorer import check, load

BLOCK = 512
_IO = -12  # what the core calls a card or flash that failed
_READ, _WRITE = 1, 2
_CARD, _FLASH, _RESET = 0, 1, 2


class Log:
    """Where kept frames go: a block device (an SD card) or a file of the card's content.

    A block device has readblocks(), writeblocks() and ioctl(), blocks of 512 bytes. A file is
    opened with "r+b". Both are formatted by the host: `drip card format`.
    """

    def __init__(self, card):
        self._card = card
        self._is_device = hasattr(card, "writeblocks")
        if self._is_device:
            self.blocks = card.ioctl(4, 0)
            if (card.ioctl(5, 0) or BLOCK) != BLOCK:
                raise ValueError("drip.Log wants blocks of 512 bytes")
        else:
            self.blocks = card.seek(0, 2) // BLOCK

    def read(self, block, buffer):
        """Read whole blocks."""
        if self._is_device:
            self._card.readblocks(block, buffer)
        else:
            self._card.seek(block * BLOCK)
            if self._card.readinto(buffer) != len(buffer):
                raise OSError("short read")

    def write(self, block, buffer):
        """Write whole blocks; returns when they are safe."""
        if self._is_device:
            self._card.writeblocks(block, buffer)
        else:
            self._card.seek(block * BLOCK)
            if self._card.write(buffer) != len(buffer):
                raise OSError("short write")
            self._card.flush()


class Link:
    """The line to the host: a UART, a socket, or, without an argument, the line of the REPL.

    The REPL's line is taken over: Ctrl-C no longer stops the program, as every byte may be part
    of a frame. `output`: where answers go when that is another stream.
    """

    def __init__(self, stream=None, output=None):
        if stream is None:
            import micropython

            if hasattr(micropython, "kbd_intr"):
                micropython.kbd_intr(-1)
            stream = getattr(sys.stdin, "buffer", sys.stdin)
            output = getattr(sys.stdout, "buffer", sys.stdout)
        self._stream = stream
        self._output = stream if output is None else output
        self._any = getattr(stream, "any", None)
        self._poll = None
        if self._any is None:
            import select

            self._poll = select.poll()
            self._poll.register(stream, select.POLLIN)
            self._ready = select.POLLIN
        self._one = bytearray(1)

    def _has(self, wait_ms):
        for item in self._poll.ipoll(wait_ms):
            if item[1] & self._ready:
                return True
            raise OSError("the line is closed")
        return False

    def read(self, buffer, size):
        """Move up to `size` received bytes into `buffer`; returns how many, never waits."""
        if self._any is not None:
            size = min(size, self._any())
            return (self._stream.readinto(buffer, size) or 0) if size else 0
        count = 0
        one = self._one
        while count < size and self._has(0):
            # One at a time: a stream without any() waits until it has all that it is asked for.
            if not self._stream.readinto(one):
                break
            buffer[count] = one[0]
            count += 1
        return count

    def write(self, buffer):
        """Send all of `buffer`."""
        view = memoryview(buffer)
        while len(view):
            sent = self._output.write(view)
            view = view[sent or 0 :]

    def wait(self, ms):
        """Sleep until a byte arrives, `ms` at most."""
        if self._poll is None:
            time.sleep_ms(min(ms, 1))
        else:
            self._has(ms)


class Slots:
    """Two model slots and their journal, in a file; a pushed model runs from RAM.

    `slot_bytes`: the largest model, a multiple of 16; RAM for two is used. Without slots the host
    cannot push models.
    """

    JOURNAL = 2048

    def __init__(self, path, slot_bytes=32768):
        self._path = path
        self.models = bytearray(2 * slot_bytes)
        self.journals = bytearray(2 * self.JOURNAL)
        self._slot_bytes = slot_bytes
        wanted = len(self.models) + len(self.journals)
        try:
            with open(path, "rb") as stream:
                if stream.seek(0, 2) != wanted:
                    raise ValueError(path + " was made with another slot_bytes; remove it")
                stream.seek(0)
                stream.readinto(self.models)
                stream.readinto(self.journals)
        except OSError:
            for buffer in (self.models, self.journals):
                for i in range(len(buffer)):
                    buffer[i] = 0xFF
            with open(path, "wb") as stream:
                stream.write(self.models)
                stream.write(self.journals)

    def keep(self, area, offset, size):
        """Write what changed to the file; returns when it is safe."""
        buffer = self.models if area < 2 else self.journals
        start = (self._slot_bytes if area < 2 else self.JOURNAL) * (area & 1) + offset
        with open(self._path, "r+b") as stream:
            stream.seek(start + (0 if area < 2 else len(self.models)))
            stream.write(memoryview(buffer)[start : start + size])
            stream.flush()


def _identity():
    try:
        import machine

        # Boards tell 3 to 12 bytes; longer ones are folded.
        unique = machine.unique_id()
    except (ImportError, AttributeError):
        unique = b"micropython"
    identity = bytearray(16)
    for i in range(len(unique)):
        identity[i % 16] ^= unique[i]
    return identity


class Device:
    """Everything the C firmware does, driven by step().

    `model`: path or buffer; runs until a pushed one is confirmed. `log`, `link`, `slots`: see
    there; each may be missing. `arena`, `capture`: bytes for the largest model and frame that
    will ever be pushed; default: what `model` needs. `reset`: called when the host asks for a
    restart; default: the device starts again, MicroPython goes on.
    """

    def __init__(
        self,
        model=None,
        log=None,
        link=None,
        slots=None,
        arena=0,
        capture=1024,
        device_id=None,
        reset=None,
    ):
        self._log, self._link, self._slots, self._on_reset = log, link, slots, reset
        self._blob = None
        self.frame_bytes = 0
        if model is not None:
            self._blob = load(model)
            arena, capture = self._needs(arena, capture)
        self._id = _identity() if device_id is None else device_id
        self._arena = bytearray(arena or 16384)
        self._capture = bytearray((capture + 7) // 8 * 8)
        self._scratch = bytearray(2048)
        self._state = state = bytearray(native.state_bytes(1))
        self._wants = array("I", [0] * 8)
        self._bytes = bytearray(256)
        self._view = memoryview(self._bytes)
        self._block = bytearray(BLOCK)
        self._result = bytearray(40)
        self._frame = None
        self._open()
        if slots is not None:
            check("slots refused", native.board_flash(state, slots.models, slots.journals))
        if log is not None:
            native.board_card(state, log.blocks)
        self._last = time.ticks_us()
        check("device does not start", native.board_start(state))

    def _needs(self, arena, capture):
        from drip.scorer import Scorer

        scorer = Scorer(self._blob)
        self.frame_bytes = scorer.frame_bytes
        return max(arena, len(scorer._arena)), max(capture, scorer.frame_bytes)

    def _open(self):
        check(
            "device does not start",
            native.board_open(
                self._state,
                self._arena,
                self._capture,
                self._scratch,
                self._blob,
                self._id,
                "micropython",
            ),
        )

    # -------------------------------------------------------------- the card and the slots

    def _card(self):
        wants, block = self._wants, self._block
        code = 0
        try:
            for i in range(wants[2]):
                if wants[0] == _READ:
                    self._log.read(wants[1] + i, block)
                    native.board_block(self._state, i, block)
                else:
                    native.board_block(self._state, i, block)
                    self._log.write(wants[1] + i, block)
        except OSError:
            code = _IO
        native.board_done(self._state, _CARD, code)

    def _serve(self):
        wants, state = self._wants, self._state
        if wants[0]:
            self._card()
        if wants[3]:
            code = 0
            try:
                self._slots.keep(wants[4], wants[5], wants[6])
            except OSError:
                code = _IO
            native.board_done(state, _FLASH, code)
        if wants[7]:
            self._send()
            native.board_done(state, _RESET, 0)
            if self._on_reset is not None:
                self._on_reset()
            check("device does not start", native.board_start(state))

    # -------------------------------------------------------------- the line

    def _receive(self):
        data = self._bytes
        room = native.board_receive(self._state, data, 0)
        while room:
            size = self._link.read(data, min(room, len(data)))
            if not size:
                break
            room = native.board_receive(self._state, data, size)

    def _send(self):
        while True:
            size = native.board_transmit(self._state, self._bytes)
            if not size:
                return
            self._link.write(self._view[:size])

    def step(self):
        """Do a bounded piece of work; call it for ever.

        Returns False when there is nothing to do until a byte or a frame arrives.
        """
        now = time.ticks_us()
        elapsed = time.ticks_diff(now, self._last)
        self._last = now
        if self._link is not None:
            self._receive()
        more = native.board_step(self._state, elapsed)
        if native.board_wants(self._state, self._wants):
            self._serve()
            more = 1
        if self._link is not None:
            self._send()
        return bool(more)

    def wait(self, ms=5):
        """Sleep until a byte arrives, `ms` at most."""
        if self._link is not None:
            self._link.wait(ms)
        else:
            time.sleep_ms(ms)

    # -------------------------------------------------------------- frames

    def idle(self):
        """Whether the next frame may be offered."""
        return native.board_result(self._state, self._result) == 1

    def offer(self, frame):
        """Hand over a frame; leave its buffer alone until idle()."""
        self._frame = frame
        return check("frame refused", native.board_offer(self._state, frame))

    def result(self):
        """Return struct result of the last frame, 40 bytes (docs/SPEC.md)."""
        native.board_result(self._state, self._result)
        return self._result

    def config(self, key, value):
        """Change a setting: a key of enum config in docs/SPEC.md."""
        check("setting refused", native.board_config(self._state, key, value))

    def stream(self, description):
        """Describe the sensor: struct stream of docs/SPEC.md, 24 bytes. Before the first frame."""
        check("stream refused", native.board_stream(self._state, description))


def run(sensor, model, log=None, link=None, slots=None, steps=None, **options):
    """Run the whole loop: sensor(buffer) fills a frame and returns True when it is complete.

    `sensor` must not wait. `steps`: stop after so many; None = never. `options`: see Device.
    """
    device = Device(model, log=log, link=link, slots=slots, **options)
    frame = bytearray(device.frame_bytes)
    while steps is None or steps > 0:
        if sensor is not None and device.idle() and sensor(frame):
            device.offer(frame)
        if not device.step():
            device.wait(5)
        if steps is not None:
            steps -= 1
    return device
