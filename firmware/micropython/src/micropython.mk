# The module built into firmware: make USER_C_MODULES=.../firmware/micropython ...
DRIP_MOD_DIR := $(USERMOD_DIR)
DRIP_CORE_DIR := $(DRIP_MOD_DIR)/../../core

# A firmware has the C library's memory functions: mp_memory.c is for native modules only.
SRC_USERMOD_C += $(DRIP_MOD_DIR)/mp_module.c $(DRIP_MOD_DIR)/mp_scorer.c $(DRIP_MOD_DIR)/mp_board.c
SRC_USERMOD_LIB_C += $(wildcard $(DRIP_CORE_DIR)/src/*.c $(DRIP_CORE_DIR)/src/kernels/*.c)
CFLAGS_USERMOD += -I$(DRIP_MOD_DIR) -I$(DRIP_CORE_DIR)/include -I$(DRIP_CORE_DIR)/src
