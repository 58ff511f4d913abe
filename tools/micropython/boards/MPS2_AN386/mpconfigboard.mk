# QEMU's mps2-an386: a Cortex-M4 with FPU. For the qemu port of MicroPython, outside its tree.
QEMU_ARCH = arm
QEMU_MACHINE = mps2-an386

CFLAGS += -mthumb -mcpu=cortex-m4 -mfpu=fpv4-sp-d16 -mfloat-abi=hard
CFLAGS += -DQEMU_SOC_MPS2
CFLAGS += -DMICROPY_HW_MCU_NAME='"Cortex-M4"'
CFLAGS += -DMP_CONFIGFILE='"$(BOARD_DIR)/config.h"'
# board.c stands in front of two functions of the port.
LDFLAGS += -Wl,--wrap=uart_init -Wl,--wrap=mp_hal_stdio_poll
SRC_C += $(BOARD_DIR)/board.c

LDSCRIPT = mcu/arm/mps2.ld

SRC_BOARD_O = shared/runtime/gchelper_native.o shared/runtime/gchelper_thumb2.o

MPY_CROSS_FLAGS += -march=armv7emsp
