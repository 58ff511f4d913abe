"""Stand-in for PlatformIO's platform ``native``."""

from platformio.public import PlatformBase


class NativePlatform(PlatformBase):
    """Programs for this computer: no boards."""

    def get_boards(self, id_=None):
        """No boards."""
        return {} if id_ is None else None
