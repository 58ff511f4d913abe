# What every board here has beyond the qemu port of MicroPython.
BOARDS := $(dir $(BOARD_DIR))

CFLAGS += -DMP_CONFIGFILE='"$(BOARDS)config.h"' -I$(BOARDS)
# hal.c stands in front of this.
LDFLAGS += -Wl,--wrap=mp_hal_stdio_poll
SRC_C += $(BOARDS)hal.c $(BOARD_DIR)/board.c
