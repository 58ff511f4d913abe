# QEMU's mps2-an386: a Cortex-M4 with FPU. For the qemu port of MicroPython, outside its tree.
QEMU_ARCH = arm
QEMU_MACHINE = mps2-an386

CFLAGS += -mthumb -mcpu=cortex-m4 -mfpu=fpv4-sp-d16 -mfloat-abi=hard
CFLAGS += -DQEMU_SOC_MPS2
CFLAGS += -DMICROPY_HW_MCU_NAME='"Cortex-M4"'
include $(dir $(BOARD_DIR))boards.mk
CFLAGS += -DBOARD_TICKS_PER_US=25
MICROPY_VFS_LFS2 = 1
# board.c stands in front of these.
comma := ,
WRAPPED = uart_init mp_init pyexec_raw_repl pyexec_friendly_repl
LDFLAGS += $(addprefix -Wl$(comma)--wrap=,$(WRAPPED))

LDSCRIPT = mcu/arm/mps2.ld
LDFLAGS += -T $(BOARD_DIR)/discard.ld

SRC_BOARD_O = shared/runtime/gchelper_native.o shared/runtime/gchelper_thumb2.o

MPY_CROSS_FLAGS += -march=armv7emsp
