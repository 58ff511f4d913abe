freeze("modules")  # noqa: F821 - MicroPython's build defines it
