"""Stand-in for PlatformIO's platform ``ststm32``."""

from platformio.public import PlatformBase

UPLOADERS = {"stlink": "tool-openocd", "dfu": "tool-dfuutil"}


class Ststm32Platform(PlatformBase):
    """Boards with an STM32, without a framework."""

    def configure_default_packages(self, variables, targets):
        """Ask for the tool that uploads."""
        board = self.board_config(variables["board"]) if variables.get("board") else None
        protocol = variables.get("upload_protocol") or (board and board.get("upload.protocol"))
        if protocol in UPLOADERS:
            self.packages[UPLOADERS[protocol]]["optional"] = False
        return super().configure_default_packages(variables, targets)
