"""Motion frames from an MPU-6050 on I2C: six axes, kept on an SD card, synced over the REPL's line.

Not tried on hardware. The model's frame is N samples of six 16-bit values, little-endian.
"""

import time

from machine import I2C, SPI, Pin
from sdcard import SDCard  # mpremote mip install sdcard

import drip

i2c = I2C(0)
i2c.writeto_mem(0x68, 0x6B, b"\x00")  # wake up
sample = bytearray(14)
filled = 0
due = time.ticks_ms()


def sensor(frame):
    """Add a sample every 10 ms; True when the frame is full. Never waits."""
    global filled, due
    if time.ticks_diff(time.ticks_ms(), due) < 0:
        return False
    due = time.ticks_add(due, 10)
    i2c.readfrom_mem_into(0x68, 0x3B, sample)
    for source in (0, 2, 4, 8, 10, 12):  # 6 is the temperature
        frame[filled] = sample[source + 1]
        frame[filled + 1] = sample[source]
        filled += 2
    if filled < len(frame):
        return False
    filled = 0
    return True


card = SDCard(SPI(1), Pin(15))
drip.run(sensor, "model.drip", log=drip.Log(card), link=drip.Link(), slots=drip.Slots("slots.bin"))
