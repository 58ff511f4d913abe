# QEMU's virt as the qemu port of MicroPython has it, with what boards have and the port leaves out.
include boards/VIRT_RV32/mpconfigboard.mk

CFLAGS += -DMP_CONFIGFILE='"$(BOARD_DIR)/config.h"'
# board.c stands in front of this.
LDFLAGS += -Wl,--wrap=mp_hal_stdio_poll
SRC_C += $(BOARD_DIR)/board.c
