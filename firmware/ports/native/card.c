#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "native.h"

/* What the system has taken survives the end of this process, and that is the power loss this card can
 * have: so a transfer counts as safe at once, and the file is flushed when the device stops. */
static struct {
    int fd;
    uint32_t blocks;
    int is_protected;
    int result;
} card = {.fd = -1};

void native_card_open(const char *path)
{
    struct stat about;

    card.fd = open(path, O_RDWR | O_CLOEXEC);
    if (card.fd < 0 && (errno == EACCES || errno == EPERM || errno == EROFS)) {
        card.fd = open(path, O_RDONLY | O_CLOEXEC);
        card.is_protected = 1;
    }
    if (card.fd < 0 || fstat(card.fd, &about) < 0) {
        native_fail("cannot open the card image %s: %s", path, strerror(errno));
    }
    if (!S_ISREG(about.st_mode) || about.st_size < DRIP_BLOCK_BYTES) {
        native_fail("%s is not a card image; make one with: drip card format %s", path, path);
    }
    /* A file that nobody may write is a card with its lock switch on, also for root. */
    if ((about.st_mode & (S_IWUSR | S_IWGRP | S_IWOTH)) == 0) {
        card.is_protected = 1;
    }
    if (flock(card.fd, LOCK_EX | LOCK_NB) < 0) {
        native_fail("the card image %s is in use by another process", path);
    }
    card.blocks = about.st_size / DRIP_BLOCK_BYTES > UINT32_MAX
                      ? UINT32_MAX
                      : (uint32_t)(about.st_size / DRIP_BLOCK_BYTES);
}

void native_card_close(void)
{
    if (card.fd >= 0) {
        fsync(card.fd);
        close(card.fd);
        card.fd = -1;
    }
}

static int card_blocks(void *context, uint32_t *blocks)
{
    (void)context;
    *blocks = card.blocks;
    return card.fd < 0 ? DRIP_ERR_NO_CARD : DRIP_ERR_OK;
}

static int check(uint32_t block, uint32_t count)
{
    if (card.fd < 0) {
        return DRIP_ERR_NO_CARD;
    }
    return block > card.blocks || count > card.blocks - block ? DRIP_ERR_ARGUMENT : DRIP_ERR_OK;
}

static int card_read(void *context, uint32_t block, uint8_t *data, uint32_t count)
{
    size_t size = (size_t)count * DRIP_BLOCK_BYTES;
    int code = check(block, count);

    (void)context;
    if (code < 0) {
        return code;
    }
    card.result = pread(card.fd, data, size, (off_t)block * DRIP_BLOCK_BYTES) == (ssize_t)size
                      ? DRIP_ERR_OK
                      : DRIP_ERR_IO;
    return DRIP_ERR_OK;
}

static int card_write(void *context, uint32_t block, const uint8_t *data, uint32_t count)
{
    size_t size = (size_t)count * DRIP_BLOCK_BYTES;
    int code = check(block, count);

    (void)context;
    if (code < 0 || card.is_protected) {
        return code < 0 ? code : DRIP_ERR_PROTECTED;
    }
    card.result = pwrite(card.fd, data, size, (off_t)block * DRIP_BLOCK_BYTES) == (ssize_t)size
                      ? DRIP_ERR_OK
                      : DRIP_ERR_IO;
    return DRIP_ERR_OK;
}

static int card_poll(void *context)
{
    (void)context;
    return card.result;
}

void native_card_attach(drip_port_t *port)
{
    port->card_blocks = card_blocks;
    port->card_read = card_read;
    port->card_write = card_write;
    port->card_poll = card_poll;
}
