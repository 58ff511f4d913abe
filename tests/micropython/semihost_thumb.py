"""Runs in MicroPython in QEMU on a Cortex-M: asks the emulator for something."""

import micropython


@micropython.asm_thumb
def call(r0, r1):
    data(2, 0xBEAB)  # noqa: F821 - a directive of the assembler
