#include "job.h"

int desk_post(desk_t *desk, const job_t *job)
{
    if (atomic_load_explicit(&desk->posted, memory_order_acquire)) {
        return DRIP_ERR_BUSY;
    }
    desk->job = *job;
    atomic_store_explicit(&desk->posted, 1, memory_order_release);
    return DRIP_ERR_OK;
}

int desk_poll(desk_t *desk)
{
    return atomic_load_explicit(&desk->posted, memory_order_acquire) ? DRIP_ERR_BUSY : desk->result;
}

int desk_take(desk_t *desk, job_t *job)
{
    if (!atomic_load_explicit(&desk->posted, memory_order_acquire)) {
        return 0;
    }
    *job = desk->job;
    return 1;
}

void desk_finish(desk_t *desk, int result)
{
    desk->result = result;
    atomic_store_explicit(&desk->posted, 0, memory_order_release);
}
