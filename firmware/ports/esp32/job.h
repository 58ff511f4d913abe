/* A piece of work that blocks, handed from the owner to a task that may wait: one at a time, no lock.
 * Portable C11. */
#ifndef ESP32_JOB_H
#define ESP32_JOB_H

#include <stdatomic.h>
#include <stdint.h>

#include "drip/wire.h"

/* What is to be done; what it means is up to the two sides. */
typedef struct {
    uint8_t kind;
    uint8_t reserved[3];
    uint32_t at;
    uint32_t count;
    void *data;
} job_t;

/* All zeros is a desk without work, whose last result is DRIP_ERR_OK. */
typedef struct {
    atomic_int posted; /* owner: 1 = there is work; worker: 0 = done */
    int32_t result;
    job_t job;
} desk_t;

/* Owner: hands over a job. Returns DRIP_ERR_OK, or _BUSY while the one before is not done. */
int desk_post(desk_t *desk, const job_t *job);

/* Owner: returns DRIP_ERR_BUSY, or the result of the last job. */
int desk_poll(desk_t *desk);

/* Worker: returns 1 and the job when there is one. */
int desk_take(desk_t *desk, job_t *job);

/* Worker: ends the job that was taken. */
void desk_finish(desk_t *desk, int result);

#endif
