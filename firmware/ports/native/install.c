#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "native.h"

enum { MODEL_ALIGN = 16, MODEL_LIMIT = 64 << 20 };

void *native_read_model(const char *path, uint32_t *bytes)
{
    FILE *file = fopen(path, "rb");
    struct stat about;
    size_t room;
    void *blob;

    if (file == NULL || fstat(fileno(file), &about) < 0) {
        native_fail("cannot open the model %s: %s", path, strerror(errno));
    }
    if (!S_ISREG(about.st_mode) || about.st_size < DRIP_BLOB_HEADER_BYTES ||
        about.st_size > MODEL_LIMIT) {
        native_fail("%s is not a compiled model; make one with: drip compile", path);
    }
    room = ((size_t)about.st_size + MODEL_ALIGN - 1) / MODEL_ALIGN * MODEL_ALIGN;
    blob = aligned_alloc(MODEL_ALIGN, room);
    if (blob == NULL || fread(blob, 1, (size_t)about.st_size, file) != (size_t)about.st_size) {
        native_fail("cannot read the model %s", path);
    }
    fclose(file);
    *bytes = (uint32_t)about.st_size;
    return blob;
}

/* Does one request to the end. */
static void run(drip_slot_t *slot, const drip_model_request_t *request, const uint8_t *chunk,
                uint32_t size, uint32_t arena_bytes)
{
    int code = drip_slot_request(slot, request, chunk, size, arena_bytes);

    while (code == DRIP_ERR_OK && (code = drip_slot_poll(slot)) == DRIP_ERR_BUSY) {
        code = DRIP_ERR_OK;
    }
    if (code < 0) {
        native_fail("cannot install the model: error %d in step %d", code, request->op);
    }
}

void native_install(const drip_port_t *port, const void *blob, uint32_t bytes, uint32_t arena_bytes)
{
    drip_model_request_t request;
    drip_blob_header_t header;
    drip_slot_t slot;
    drip_nn_t nn;
    uint32_t at;

    if (drip_slot_open(&slot, port, arena_bytes, &nn) >= 0) {
        return;
    }
    memcpy(&header, blob, sizeof(header));
    memset(&request, 0, sizeof(request));
    request.op = DRIP_MODEL_BEGIN;
    request.total_bytes = bytes;
    request.arena_bytes = header.arena_bytes;
    request.op_bitmap = header.op_bitmap;
    request.blob_crc = drip_crc32(0, blob, bytes);
    memcpy(request.model_id, header.model_id, sizeof(request.model_id));
    run(&slot, &request, NULL, 0, arena_bytes);
    request.op = DRIP_MODEL_DATA;
    for (at = 0; at < bytes; at += DRIP_MAX_CHUNK_BYTES) {
        uint32_t size = bytes - at < DRIP_MAX_CHUNK_BYTES ? bytes - at : DRIP_MAX_CHUNK_BYTES;

        request.offset = at;
        run(&slot, &request, (const uint8_t *)blob + at, size, arena_bytes);
    }
    request.op = DRIP_MODEL_TRIAL;
    run(&slot, &request, NULL, 0, arena_bytes);
    if (drip_slot_trial(&slot, DRIP_ERR_OK) < 0) {
        native_fail("cannot install the model: its slot is not on trial");
    }
    request.op = DRIP_MODEL_CONFIRM;
    run(&slot, &request, NULL, 0, arena_bytes);
}
