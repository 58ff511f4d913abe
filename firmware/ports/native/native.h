/* The parts of the native port. Each implements some functions of drip/port.h on a host. */
#ifndef DRIP_NATIVE_H
#define DRIP_NATIVE_H

#include "drip/device.h"

/* One line on stderr, then exit with 1. */
void native_fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* ---- line.c: the UART, a pty or one TCP connection at a time */

/* Opens a pty; `link_path`, unless NULL, becomes a symbolic link to it. */
void native_line_open_pty(const char *link_path);
/* Listens on 127.0.0.1; port 0 lets the system choose. */
void native_line_open_tcp(unsigned port);
/* Where a host connects: the path of the pty, or tcp:127.0.0.1:PORT. */
const char *native_line_address(void);
/* Moves bytes between the system and the buffers of the port; never waits. */
void native_line_move(void);
/* Sleeps until bytes arrive, queued bytes can go, a signal comes, or `ms` have passed. */
void native_line_sleep(int ms);
/* Returns 1 while bytes wait to be sent. */
int native_line_unsent(void);
/* Removes the symbolic link. */
void native_line_close(void);
void native_line_attach(drip_port_t *port);

/* ---- card.c: an image file as the SD card */

void native_card_open(const char *path);
void native_card_close(void);
void native_card_attach(drip_port_t *port);

/* ---- flash.c: a file as memory-mapped flash: writes only clear bits */

void native_flash_open(const char *path, uint32_t slot_bytes);
void native_flash_close(void);
void native_flash_attach(drip_port_t *port);

/* ---- install.c */

/* Reads a file into memory aligned for a model. The caller keeps it until the process ends. */
void *native_read_model(const char *path, uint32_t *bytes);
/* Puts a model into a slot and confirms it, if the flash holds none that runs. */
void native_install(const drip_port_t *port, const void *blob, uint32_t bytes,
                    uint32_t arena_bytes);

#endif
