/* What the device_*.c files share; not for other files. */
#ifndef DRIP_DEVICE_INTERNAL_H
#define DRIP_DEVICE_INTERNAL_H

#include "drip/device.h"

enum {
    DEVICE_STEP_MACS = 300000,
    DEVICE_FEED_TIMEOUT_US = 2000000,
    DEVICE_MOUNT_RETRY_US = 1000000,
    DEVICE_MOUNT_WAIT_US = 1000000, /* so long a frame waits for a card; then it goes unstored */
    DEVICE_RESET_TIMEOUT_US = 2000000,
    DEVICE_HELLO_WAIT_US = 300000,
};

/* What the frame in work waits for. */
enum drip_device_stage {
    STAGE_IDLE,
    STAGE_QUANTISE,
    STAGE_INFER,
    STAGE_SCORE,
    STAGE_DECIDE,
    STAGE_APPEND,
    STAGE_LOGGING, /* decided; the log still reads the frame */
};

/* What the pending MODEL request waits for. */
enum drip_device_model_stage {
    MODEL_SLOT,     /* flash or CRC work of the slot */
    MODEL_SELFTEST, /* inferences over golden inputs */
    MODEL_RECORD,   /* the outcome to be in the journal */
};

enum { REQUEST_HOLD = 0, REQUEST_DONE = 1 };

uint64_t drip_device_now(const drip_device_t *device);

/* Takes a frame into work. */
void drip_device_begin(drip_device_t *device, const drip_frame_t *frame, int only_score);

/* Whether a request needs the model or the result for itself. */
int drip_device_reserved(const drip_device_t *device);

/* ---- device_queue.c */

/* Where the next frame goes, or NULL when every place is taken. */
uint8_t *drip_device_place(const drip_device_t *device);

/* The frame that was put there is there to stay. */
void drip_device_enqueue(drip_device_t *device);

/* Asks the sensor for a frame. Returns 1 when one came. */
int drip_device_capture(drip_device_t *device);

/* Takes the frame that has waited longest into work. Returns 1 when there was one. */
int drip_device_next(drip_device_t *device);

/* The frame in work is done with. */
void drip_device_release(drip_device_t *device);

/* ---- device_model.c */

/* Makes what should run now run: the active slot (`opened`: it is in device->nn), else the fixed
 * model. */
void drip_device_open_active(drip_device_t *device, int opened);

/* Opens the score of the present model, by the wish of the user or else of the model. */
int drip_device_open_score(drip_device_t *device);

/* Handles a MODEL request. Returns REQUEST_*. */
int drip_device_model(drip_device_t *device, const drip_link_frame_t *request);

/* Whether a MODEL request changes the model that a frame in work may be using. */
int drip_device_needs_quiet(uint8_t op);

/* Goes on with the pending MODEL request. Returns 1 while there is more to do at once. */
int drip_device_model_step(drip_device_t *device);

/* ---- device_config.c */

/* The value of a setting. */
uint32_t drip_device_setting(const drip_device_t *device, uint16_t key);

/* Answers to CONFIG_GET and CONFIG_SET. Return REQUEST_*. */
int drip_device_config_get(drip_device_t *device, const drip_link_frame_t *request);
int drip_device_config_set(drip_device_t *device, const drip_link_frame_t *request);

/* Answers a CONFIG_SET when its settings are in the journal. */
void drip_device_config_pending(drip_device_t *device);

/* Takes the settings that the journal holds. */
void drip_device_config_restore(drip_device_t *device);

/* Tells the policy how full the card is, when it paces. */
void drip_device_pace(drip_device_t *device);

/* ---- device_feed.c */

/* Handles FEED and SCORE. Returns REQUEST_*. */
int drip_device_feed(drip_device_t *device, const drip_link_frame_t *request);

/* Answers a FEED or SCORE with the result. Returns REQUEST_*. */
int drip_device_answer_result(drip_device_t *device, uint8_t type, uint16_t id);

/* ---- device_log.c */

/* Handle READ, ACK and SYNC. Return REQUEST_*. */
int drip_device_read(drip_device_t *device, const drip_link_frame_t *request);
int drip_device_ack(drip_device_t *device, const drip_link_frame_t *request);
int drip_device_sync(drip_device_t *device, const drip_link_frame_t *request);

/* Answers the one of them that is pending when the log has done its part. */
void drip_device_log_pending(drip_device_t *device);

/* Has the host's clock noted in the log, when the log does not know it. */
void drip_device_note_clock(drip_device_t *device);
void drip_device_clock_step(drip_device_t *device);

/* Returns 1 when there is a log to write to or read from. */
int drip_device_has_log(const drip_device_t *device);

/* ---- device_card.c */

/* Looks for a log on the card, from the start. */
void drip_device_mount(drip_device_t *device);

/* Does a piece of that, or of the log's work. Returns 1 when there is more to do at once. */
int drip_device_card_step(drip_device_t *device);

/* State of the card as the host sees it. */
uint8_t drip_device_card_state(const drip_device_t *device);

/* Reports a change of it, and looks again at a card that could not be used. */
void drip_device_watch_card(drip_device_t *device);

/* ---- device_state.c */

/* Counts powered-on time, takes the state that a card holds, and keeps one there. */
void drip_device_state_step(drip_device_t *device);

/* Has the state written before a restart. Returns 1 when it is, or cannot be. */
int drip_device_state_saved(drip_device_t *device);

/* Whether a decision should wait for the state on a card that is being read. */
int drip_device_waits_for_state(const drip_device_t *device);

/* ---- device_baud.c */

void drip_device_baud_init(drip_device_t *device);

/* Handles BAUD. Returns REQUEST_*. */
int drip_device_baud(drip_device_t *device, const drip_link_frame_t *request);

/* Changes the rate when it is time to; `heard` = a valid frame has arrived. */
void drip_device_baud_step(drip_device_t *device, int heard);

/* ---- device_stream.c */

/* Takes a READ request for a stream; needs no place for an answer. Returns REQUEST_*. */
int drip_device_stream(drip_device_t *device, const drip_link_frame_t *request);

/* Sends or fetches the next chunk. Returns 1 when it did something. */
int drip_device_stream_step(drip_device_t *device);

/* Forgets all streams. */
void drip_device_stream_stop(drip_device_t *device);

/* ---- device_requests.c */

/* Has a request answered later. */
void drip_device_defer(drip_device_t *device, const drip_link_frame_t *request);

/* Handles a request. Returns REQUEST_HOLD when it must be shown again later. */
int drip_device_request(drip_device_t *device, const drip_link_frame_t *request);

/* Goes on with the pending request, if any. Returns 1 while there is more to do at once. */
int drip_device_pending(drip_device_t *device);

/* Sends one EVENT that is due, when the line is free. */
void drip_device_event(drip_device_t *device);

/* Where to build an answer, or NULL when the line, or a READ in progress, needs the buffer. */
uint8_t *drip_device_body(drip_device_t *device);

/* Answers with a code. */
int drip_device_answer(drip_device_t *device, const drip_link_frame_t *request, int code,
                       uint32_t detail);

/* Sends what was built in the body. */
void drip_device_send(drip_device_t *device, uint8_t request_type, uint16_t id, uint32_t size);

#endif
