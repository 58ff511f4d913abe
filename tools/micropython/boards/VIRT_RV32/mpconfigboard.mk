# QEMU's virt as the qemu port of MicroPython has it, with what boards have and the port leaves out.
include boards/VIRT_RV32/mpconfigboard.mk
include $(dir $(BOARD_DIR))boards.mk

CFLAGS += -DBOARD_TICKS_PER_US=10
