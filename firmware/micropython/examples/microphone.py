"""Sound frames from an I2S microphone: 16-bit samples. Not tried on hardware (ESP32 pins)."""

from machine import I2S, SPI, Pin
from sdcard import SDCard  # mpremote mip install sdcard

import drip

audio = I2S(
    0,
    sck=Pin(26),
    ws=Pin(25),
    sd=Pin(33),
    mode=I2S.RX,
    bits=16,
    format=I2S.MONO,
    rate=16000,
    ibuf=16000,
)
done = False
started = False


def _on_done(_):
    global done
    done = True


audio.irq(_on_done)  # readinto() returns at once and calls this when the frame is full


def sensor(frame):
    """Start to fill the frame, then say when it is full. Never waits."""
    global done, started
    if not started:
        started, done = True, False
        audio.readinto(frame)
    if done:
        started = False
        return True
    return False


card = SDCard(SPI(1), Pin(15))
drip.run(sensor, "model.drip", log=drip.Log(card), link=drip.Link())
