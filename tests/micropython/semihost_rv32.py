"""Runs in MicroPython in QEMU on RV32: asks the emulator for something."""

import micropython


@micropython.asm_rv32
def call(a0, a1):
    # The three lie in one page: QEMU knows the middle one by its neighbours.
    c_j(there)  # noqa: F821 - as all that follows, it is of the assembler
    align(16)  # noqa: F821
    label(there)  # noqa: F821
    slli(zero, zero, 0x1F)  # noqa: F821
    ebreak()  # noqa: F821
    srai(zero, zero, 7)  # noqa: F821
