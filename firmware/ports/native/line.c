/* Pseudo-terminals are an X/Open extension. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "native.h"

enum { BUFFER_BYTES = 8192 };

typedef struct {
    uint8_t bytes[BUFFER_BYTES];
    size_t begin;
    size_t end;
} buffer_t;

static struct {
    int fd;       /* pty master or connection, -1 = nobody is connected */
    int keep;     /* our own end of the pty: without it, poll() reports a hang-up for ever */
    int listener; /* -1 = pty */
    char address[PATH_MAX];
    char link_path[PATH_MAX];
    buffer_t in;
    buffer_t out;
} line = {.fd = -1, .keep = -1, .listener = -1};

static void buffer_compact(buffer_t *buffer)
{
    memmove(buffer->bytes, buffer->bytes + buffer->begin, buffer->end - buffer->begin);
    buffer->end -= buffer->begin;
    buffer->begin = 0;
}

static void set_flags(int fd)
{
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
        native_fail("cannot set up the line: %s", strerror(errno));
    }
}

/* ------------------------------------------------------------------ opening */

static void make_link(const char *link_path)
{
    char temporary[PATH_MAX];
    struct stat there;

    if (lstat(link_path, &there) == 0 && !S_ISLNK(there.st_mode)) {
        native_fail("%s exists and is not a symbolic link; name another path with --link",
                    link_path);
    }
    if ((size_t)snprintf(temporary, sizeof(temporary), "%s.%ld", link_path, (long)getpid()) >=
        sizeof(temporary)) {
        native_fail("the path of --link is too long");
    }
    unlink(temporary);
    if (symlink(line.address, temporary) < 0 || rename(temporary, link_path) < 0) {
        native_fail("cannot make the link %s: %s", link_path, strerror(errno));
    }
    snprintf(line.link_path, sizeof(line.link_path), "%s", link_path);
}

void native_line_open_pty(const char *link_path)
{
    struct termios raw;
    const char *name;

    line.fd = posix_openpt(O_RDWR | O_NOCTTY);
    if (line.fd < 0 || grantpt(line.fd) < 0 || unlockpt(line.fd) < 0 ||
        (name = ptsname(line.fd)) == NULL) {
        native_fail("cannot open a pty: %s", strerror(errno));
    }
    snprintf(line.address, sizeof(line.address), "%s", name);
    line.keep = open(line.address, O_RDWR | O_NOCTTY);
    if (line.keep < 0 || tcgetattr(line.keep, &raw) < 0) {
        native_fail("cannot open %s: %s", line.address, strerror(errno));
    }
    cfmakeraw(&raw);
    cfsetspeed(&raw, B115200);
    if (tcsetattr(line.keep, TCSANOW, &raw) < 0) {
        native_fail("cannot set up %s: %s", line.address, strerror(errno));
    }
    set_flags(line.fd);
    set_flags(line.keep);
    if (link_path != NULL) {
        make_link(link_path);
    }
}

void native_line_open_tcp(unsigned port)
{
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t size = sizeof(local);
    int on = 1;

    local.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    line.listener = socket(AF_INET, SOCK_STREAM, 0);
    if (line.listener < 0 ||
        setsockopt(line.listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        bind(line.listener, (struct sockaddr *)&local, sizeof(local)) < 0 ||
        listen(line.listener, 1) < 0 ||
        getsockname(line.listener, (struct sockaddr *)&local, &size) < 0) {
        native_fail("cannot listen on port %u: %s", port, strerror(errno));
    }
    set_flags(line.listener);
    snprintf(line.address, sizeof(line.address), "tcp:127.0.0.1:%u",
             (unsigned)ntohs(local.sin_port));
}

const char *native_line_address(void)
{
    return line.address;
}

void native_line_close(void)
{
    char target[PATH_MAX];
    ssize_t size;

    if (line.link_path[0] == '\0') {
        return;
    }
    size = readlink(line.link_path, target, sizeof(target) - 1);
    if (size > 0) {
        target[size] = '\0';
        if (strcmp(target, line.address) == 0) {
            unlink(line.link_path);
        }
    }
}

/* ------------------------------------------------------------------ bytes */

static void hang_up(void)
{
    close(line.fd);
    line.fd = -1;
    line.in.begin = line.in.end = 0;
    line.out.begin = line.out.end = 0;
}

static void answer_call(void)
{
    int on = 1;

    line.fd = accept(line.listener, NULL, NULL);
    if (line.fd >= 0) {
        set_flags(line.fd);
        setsockopt(line.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
}

/* A pty has no far end that could go away; errors other than "not now" end a connection. */
static int is_over(ssize_t got)
{
    return line.listener >= 0 &&
           (got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR));
}

static void receive(void)
{
    ssize_t got;

    buffer_compact(&line.in);
    if (line.fd < 0 || line.in.end == BUFFER_BYTES) {
        return;
    }
    got = read(line.fd, line.in.bytes + line.in.end, BUFFER_BYTES - line.in.end);
    if (got > 0) {
        line.in.end += (size_t)got;
    } else if (is_over(got)) {
        hang_up();
    }
}

static void transmit(void)
{
    ssize_t sent;

    if (line.fd < 0) {
        line.out.begin = line.out.end =
            0; /* nobody listens, as with a UART that is not connected */
        return;
    }
    if (line.out.begin == line.out.end) {
        return;
    }
    sent = write(line.fd, line.out.bytes + line.out.begin, line.out.end - line.out.begin);
    if (sent > 0) {
        line.out.begin += (size_t)sent;
    } else if (sent < 0 && is_over(sent)) {
        hang_up();
    }
}

void native_line_move(void)
{
    if (line.listener >= 0 && line.fd < 0) {
        answer_call();
    }
    transmit();
    receive();
}

int native_line_unsent(void)
{
    return line.out.begin != line.out.end;
}

void native_line_sleep(int ms)
{
    struct pollfd wait = {.fd = line.fd >= 0 ? line.fd : line.listener, .events = 0};

    if (line.fd < 0 || line.in.end - line.in.begin < BUFFER_BYTES) {
        wait.events = POLLIN;
    }
    if (native_line_unsent()) {
        wait.events |= POLLOUT;
    }
    poll(&wait, 1, ms);
}

static int link_read(void *context, uint8_t *data, uint32_t size)
{
    size_t there = line.in.end - line.in.begin;
    size_t count = there < size ? there : size;

    (void)context;
    memcpy(data, line.in.bytes + line.in.begin, count);
    line.in.begin += count;
    return (int)count;
}

static int link_write(void *context, const uint8_t *data, uint32_t size)
{
    size_t room;

    (void)context;
    if (BUFFER_BYTES - line.out.end < size) {
        transmit();
        buffer_compact(&line.out);
    }
    room = BUFFER_BYTES - line.out.end;
    if (size > room) {
        size = (uint32_t)room;
    }
    memcpy(line.out.bytes + line.out.end, data, size);
    line.out.end += size;
    return (int)size;
}

void native_line_attach(drip_port_t *port)
{
    port->link_read = link_read;
    port->link_write = link_write;
}
