/* The task `card`: transfers of the card and work on the flash wait here, not in the owner. */
#include "board.h"
#include "job.h"

static desk_t card_desk, flash_desk;
static TaskHandle_t task;

static int for_card(uint8_t kind)
{
    return kind <= JOB_CARD_WRITE;
}

int worker_post(uint8_t kind, uint32_t at, void *data, uint32_t count)
{
    const job_t job = {.kind = kind, .at = at, .count = count, .data = data};
    int result = desk_post(for_card(kind) ? &card_desk : &flash_desk, &job);

    if (result == DRIP_ERR_OK) {
        xTaskNotifyGive(task);
    }
    return result;
}

int worker_card_poll(void)
{
    return desk_poll(&card_desk);
}

int worker_flash_poll(void)
{
    return desk_poll(&flash_desk);
}

static void worker_task(void *argument)
{
    job_t job;

    (void)argument;
    for (;;) {
        ulTaskNotifyTake(pdTRUE, portMAX_DELAY);
        if (desk_take(&card_desk, &job)) {
            desk_finish(&card_desk, card_work(job.kind, job.at, job.data, job.count));
            board_wake();
        }
        if (desk_take(&flash_desk, &job)) {
            desk_finish(&flash_desk, slots_work(job.kind, job.at, job.data, job.count));
            board_wake();
        }
    }
}

int worker_start(void)
{
    return xTaskCreate(worker_task, "card", TASK_STACK_OTHER, NULL, TASK_PRIORITY_CARD, &task) ==
                   pdPASS
               ? DRIP_ERR_OK
               : DRIP_ERR_MEMORY;
}
