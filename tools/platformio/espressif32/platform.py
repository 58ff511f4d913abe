"""Stand-in for PlatformIO's platform ``espressif32``."""

from platformio.public import PlatformBase


class Espressif32Platform(PlatformBase):
    """Boards with an ESP32: object files only."""
