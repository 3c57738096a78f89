/* What events need: a responder whose list is one (the samples' is not) and which tells what was subscribed to, and a
 * requester that keeps what it is sent. Both belong to the thread that uses them. */
#include <string.h>

#include "hal/base.h"
#include "hal/library/eventlib.h"
#include "library/spdm_common_lib.h"
#include "library/spdm_requester_lib.h"
#include "library/spdm_responder_lib.h"

#define ROOM 256

/* DSP0274 1.3 "SUPPORTED_EVENT_TYPES": the DMTF group, version 1, with its four types. */
static const uint8_t TYPES[] = {0, 0, 4, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0};

/* Number of subscriptions, kind of the last one (LIBSPDM_EVENT_SUBSCRIBE_*), its groups, length of its list; the list. */
static _Thread_local uint8_t subscription[4 + ROOM];
static _Thread_local uint8_t sent[ROOM];
static _Thread_local size_t sent_size;

bool libspdm_event_get_types(void *spdm, spdm_version_number_t version, uint32_t session, void *list, uint32_t *size,
                             uint8_t *count)
{
    if (*size < sizeof(TYPES)) {
        return false;
    }
    memcpy(list, TYPES, sizeof(TYPES));
    *size = sizeof(TYPES);
    *count = 1;
    return true;
}

bool libspdm_event_subscribe(void *spdm, spdm_version_number_t version, uint32_t session, uint8_t kind, uint8_t count,
                             uint32_t size, const void *list)
{
    if (size > ROOM) {
        return false;
    }
    subscription[0] += 1;
    subscription[1] = kind;
    subscription[2] = count;
    subscription[3] = (uint8_t)size;
    if (size != 0) {
        memcpy(subscription + 4, list, size);
    }
    return true;
}

extern libspdm_return_t libspdm_get_response_supported_event_types(void *spdm, size_t request_size, const void *request,
                                                                   size_t *response_size, void *response);

static libspdm_return_t answer(void *spdm, const uint32_t *session, bool application, size_t request_size,
                               const void *request, size_t *response_size, void *response)
{
    if (((const uint8_t *)request)[1] != 0xE2) {
        return LIBSPDM_STATUS_INVALID_MSG_FIELD;
    }
    return libspdm_get_response_supported_event_types(spdm, request_size, request, response_size, response);
}

/* From now on the responder answers GET_SUPPORTED_EVENT_TYPES by its own code, which 3.6 calls for the response's number
 * instead of the request's. */
void ref_tell_events(void *spdm)
{
    libspdm_register_get_response_func(spdm, answer);
}

/* The last subscription of this thread's responder, see above; it is forgotten. */
void ref_take_subscription(uint8_t *out, size_t size)
{
    memcpy(out, subscription, size < sizeof(subscription) ? size : sizeof(subscription));
    memset(subscription, 0, sizeof(subscription));
}

static libspdm_return_t acknowledge(void *spdm, size_t request_size, void *request, size_t *response_size, void *response)
{
    const uint8_t *header = request;
    uint8_t ack[4] = {header[0], 0x71, 0, 0};
    if (request_size > ROOM || header[1] != 0xF1) {
        return LIBSPDM_STATUS_INVALID_MSG_FIELD;
    }
    memcpy(sent, request, request_size);
    sent_size = request_size;
    memcpy(response, ack, sizeof(ack));
    *response_size = sizeof(ack);
    return LIBSPDM_STATUS_SUCCESS;
}

/* From now on the requester acknowledges SEND_EVENT, which libspdm 3.6 has no code for. */
void ref_listen(void *spdm)
{
    libspdm_register_get_encap_response_func(spdm, acknowledge);
}

/* The last SEND_EVENT of this thread's requester; it is forgotten. */
size_t ref_take_event(uint8_t *out, size_t size)
{
    size_t length = sent_size < size ? sent_size : size;
    memcpy(out, sent, length);
    sent_size = 0;
    return length;
}
