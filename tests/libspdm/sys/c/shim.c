/* libspdm set up as one requester or one responder over PCI DOE, behind plain types. Whole data objects go in and
 * out. Also the parts of the platform that libspdm's samples take from its unit tests. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hal/base.h"
#include "hal/library/debuglib.h"
#include "hal/library/memlib.h"
#include "library/spdm_common_lib.h"
#include "library/spdm_requester_lib.h"
#include "library/spdm_responder_lib.h"
#include "library/spdm_transport_pcidoe_lib.h"
#include "spdm_device_secret_lib_internal.h"

#define MESSAGE_SIZE 0x1200
#define OBJECT_SIZE \
    (MESSAGE_SIZE + LIBSPDM_PCI_DOE_TRANSPORT_HEADER_SIZE + LIBSPDM_PCI_DOE_TRANSPORT_TAIL_SIZE)

typedef struct {
    uint8_t version;          /* 0x12; 0 for the default list */
    uint8_t ct_exponent;
    uint8_t measurement_specification;
    uint8_t other_params;
    uint32_t flags;
    uint32_t measurement_hash;
    uint32_t base_asym;
    uint32_t base_hash;
    uint16_t dhe;
    uint16_t aead;
    uint16_t requester_asym;
    uint16_t key_schedule;
    uint8_t heartbeat_period; /* responder */
    uint8_t secured_version;  /* 0x11; 0 for the default list */
    uint32_t data_transfer_size; /* 0: the largest */
    uint32_t max_message_size;   /* 0: data_transfer_size; more needs chunks */
    uint8_t mel_specification;
} ref_config;

/* Requester: carries `request` to the responder, puts the answer into `response`. 0 if there is none. */
typedef size_t (*ref_exchange)(void *user, const uint8_t *request, size_t request_size,
                               uint8_t *response, size_t response_size);

typedef struct {
    void *spdm;
    void *scratch;
    ref_exchange exchange;
    void *user;
    uint8_t sender[OBJECT_SIZE + 64];
    uint8_t receiver[OBJECT_SIZE + 64];
    /* What came in last: for a responder the request, for a requester the response. */
    uint8_t inbound[OBJECT_SIZE + 64];
    size_t inbound_size;
    uint8_t outbound[OBJECT_SIZE + 64];
    size_t outbound_size;
    uint8_t sent; /* responder: there is a response */
    void *chain;
} ref_peer;

static ref_peer *peer_of(void *spdm)
{
    libspdm_data_parameter_t parameter;
    void *peer = NULL;
    size_t size = sizeof(peer);

    memset(&parameter, 0, sizeof(parameter));
    parameter.location = LIBSPDM_DATA_LOCATION_LOCAL;
    libspdm_get_data(spdm, LIBSPDM_DATA_APP_CONTEXT_DATA, &parameter, &peer, &size);
    return peer;
}

static libspdm_return_t acquire_sender(void *spdm, void **buffer)
{
    *buffer = peer_of(spdm)->sender;
    return LIBSPDM_STATUS_SUCCESS;
}

static libspdm_return_t acquire_receiver(void *spdm, void **buffer)
{
    *buffer = peer_of(spdm)->receiver;
    return LIBSPDM_STATUS_SUCCESS;
}

static void release(void *spdm, const void *buffer)
{
}

static libspdm_return_t requester_send(void *spdm, size_t size, const void *message, uint64_t timeout)
{
    ref_peer *peer = peer_of(spdm);
    peer->inbound_size =
        peer->exchange(peer->user, message, size, peer->inbound, sizeof(peer->inbound));
    return LIBSPDM_STATUS_SUCCESS;
}

static libspdm_return_t receive(void *spdm, size_t *size, void **message, uint64_t timeout)
{
    ref_peer *peer = peer_of(spdm);
    if (peer->inbound_size == 0 || peer->inbound_size > *size) {
        return LIBSPDM_STATUS_RECEIVE_FAIL;
    }
    memcpy(*message, peer->inbound, peer->inbound_size);
    *size = peer->inbound_size;
    peer->inbound_size = 0;
    return LIBSPDM_STATUS_SUCCESS;
}

static libspdm_return_t responder_send(void *spdm, size_t size, const void *message, uint64_t timeout)
{
    ref_peer *peer = peer_of(spdm);
    if (size > sizeof(peer->outbound)) {
        return LIBSPDM_STATUS_SEND_FAIL;
    }
    memcpy(peer->outbound, message, size);
    peer->outbound_size = size;
    peer->sent = 1;
    return LIBSPDM_STATUS_SUCCESS;
}

/* PCI-SIG's vendor id; the payload comes back reversed. */
static libspdm_return_t vendor_id(void *spdm, uint16_t *standard_id, uint8_t *length, void *id)
{
    static const uint8_t pci_sig[2] = { 1, 0 };
    if (*length < sizeof(pci_sig)) {
        return LIBSPDM_STATUS_INVALID_PARAMETER;
    }
    *standard_id = SPDM_REGISTRY_ID_PCISIG;
    *length = sizeof(pci_sig);
    memcpy(id, pci_sig, sizeof(pci_sig));
    return LIBSPDM_STATUS_SUCCESS;
}

static libspdm_return_t vendor_response(void *spdm, uint16_t standard_id, uint8_t id_length,
                                        const void *id, uint16_t request_size, const void *request,
                                        uint16_t *response_size, void *response)
{
    if (*response_size < request_size) {
        return LIBSPDM_STATUS_INVALID_PARAMETER;
    }
    for (uint16_t at = 0; at < request_size; at++) {
        ((uint8_t *)response)[at] = ((const uint8_t *)request)[request_size - 1 - at];
    }
    *response_size = request_size;
    return LIBSPDM_STATUS_SUCCESS;
}

static bool set(ref_peer *peer, libspdm_data_type_t type, void *data, size_t size)
{
    libspdm_data_parameter_t parameter;
    memset(&parameter, 0, sizeof(parameter));
    parameter.location = LIBSPDM_DATA_LOCATION_LOCAL;
    libspdm_return_t status = libspdm_set_data(peer->spdm, type, &parameter, data, size);
    if (LIBSPDM_STATUS_IS_ERROR(status)) {
        fprintf(stderr, "libspdm_set_data(%d): %x\n", (int)type, (unsigned)status);
        return false;
    }
    return true;
}

void ref_free(ref_peer *peer)
{
    if (peer->spdm != NULL) {
        libspdm_deinit_context(peer->spdm);
        free(peer->spdm);
    }
    free(peer->scratch);
    free(peer->chain);
    free(peer);
}

void *ref_context(ref_peer *peer)
{
    return peer->spdm;
}

static ref_peer *create(const ref_config *config, ref_exchange exchange, void *user)
{
    ref_peer *peer = calloc(1, sizeof(*peer));
    if (peer == NULL) {
        return NULL;
    }
    peer->exchange = exchange;
    peer->user = user;
    peer->spdm = calloc(1, libspdm_get_context_size());
    if (peer->spdm == NULL || LIBSPDM_STATUS_IS_ERROR(libspdm_init_context(peer->spdm))) {
        ref_free(peer);
        return NULL;
    }
    uint32_t transfer = config->data_transfer_size != 0 ? config->data_transfer_size : MESSAGE_SIZE;
    uint32_t buffer = transfer + LIBSPDM_PCI_DOE_TRANSPORT_HEADER_SIZE + LIBSPDM_PCI_DOE_TRANSPORT_TAIL_SIZE;
    uint32_t message = config->max_message_size != 0 ? config->max_message_size : transfer;
    void *self = peer;
    set(peer, LIBSPDM_DATA_APP_CONTEXT_DATA, &self, sizeof(self));
    libspdm_register_device_io_func(peer->spdm, exchange != NULL ? requester_send : responder_send, receive);
    libspdm_register_transport_layer_func(peer->spdm, message,
                                          LIBSPDM_PCI_DOE_TRANSPORT_HEADER_SIZE,
                                          LIBSPDM_PCI_DOE_TRANSPORT_TAIL_SIZE,
                                          libspdm_transport_pci_doe_encode_message,
                                          libspdm_transport_pci_doe_decode_message);
    libspdm_register_device_buffer_func(peer->spdm, buffer, buffer, acquire_sender, release,
                                        acquire_receiver, release);
    size_t scratch_size = libspdm_get_sizeof_required_scratch_buffer(peer->spdm);
    peer->scratch = calloc(1, scratch_size);
    if (peer->scratch == NULL) {
        ref_free(peer);
        return NULL;
    }
    libspdm_set_scratch_buffer(peer->spdm, peer->scratch, scratch_size);

    ref_config c = *config;
    spdm_version_number_t version = (spdm_version_number_t)(c.version << 8);
    spdm_version_number_t secured = (spdm_version_number_t)(c.secured_version << 8);
    uint8_t retries = 3;
    bool good = (version == 0 || set(peer, LIBSPDM_DATA_SPDM_VERSION, &version, sizeof(version)))
                && (secured == 0
                    || set(peer, LIBSPDM_DATA_SECURED_MESSAGE_VERSION, &secured, sizeof(secured)))
                && set(peer, LIBSPDM_DATA_CAPABILITY_CT_EXPONENT, &c.ct_exponent, 1)
                && set(peer, LIBSPDM_DATA_CAPABILITY_FLAGS, &c.flags, sizeof(c.flags))
                && set(peer, LIBSPDM_DATA_MEASUREMENT_SPEC, &c.measurement_specification, 1)
                && set(peer, LIBSPDM_DATA_BASE_ASYM_ALGO, &c.base_asym, sizeof(c.base_asym))
                && set(peer, LIBSPDM_DATA_BASE_HASH_ALGO, &c.base_hash, sizeof(c.base_hash))
                && set(peer, LIBSPDM_DATA_DHE_NAME_GROUP, &c.dhe, sizeof(c.dhe))
                && set(peer, LIBSPDM_DATA_AEAD_CIPHER_SUITE, &c.aead, sizeof(c.aead))
                && set(peer, LIBSPDM_DATA_REQ_BASE_ASYM_ALG, &c.requester_asym, sizeof(c.requester_asym))
                && set(peer, LIBSPDM_DATA_KEY_SCHEDULE, &c.key_schedule, sizeof(c.key_schedule))
                && set(peer, LIBSPDM_DATA_OTHER_PARAMS_SUPPORT, &c.other_params, 1)
                && set(peer, LIBSPDM_DATA_MEL_SPEC, &c.mel_specification, 1)
                && set(peer, LIBSPDM_DATA_REQUEST_RETRY_TIMES, &retries, 1);
    if (good && exchange == NULL) {
        good = set(peer, LIBSPDM_DATA_MEASUREMENT_HASH_ALGO, &c.measurement_hash, sizeof(c.measurement_hash))
               && set(peer, LIBSPDM_DATA_HEARTBEAT_PERIOD, &c.heartbeat_period, 1);
    }
    if (!good) {
        ref_free(peer);
        return NULL;
    }
    return peer;
}

/* A requester that trusts `root` (a DER certificate, which has to outlive it). */
ref_peer *ref_requester(const ref_config *config, const uint8_t *root, size_t root_size,
                        ref_exchange exchange, void *user)
{
    ref_peer *peer = create(config, exchange, user);
    if (peer == NULL) {
        return NULL;
    }
    if (!set(peer, LIBSPDM_DATA_PEER_PUBLIC_ROOT_CERT, (void *)root, root_size)
        || !libspdm_check_context(peer->spdm)) {
        ref_free(peer);
        return NULL;
    }
    return peer;
}

/* A responder with libspdm's sample keys and measurements. `base_asym` and `base_hash` have one bit each. */
ref_peer *ref_responder(const ref_config *config)
{
    ref_peer *peer = create(config, NULL, NULL);
    if (peer == NULL) {
        return NULL;
    }
    void *hash;
    size_t size, hash_size;
    if (!libspdm_read_responder_public_certificate_chain(config->base_hash, config->base_asym, &peer->chain,
                                                         &size, &hash, &hash_size)) {
        ref_free(peer);
        return NULL;
    }
    libspdm_data_parameter_t parameter;
    memset(&parameter, 0, sizeof(parameter));
    parameter.location = LIBSPDM_DATA_LOCATION_LOCAL;
    libspdm_set_data(peer->spdm, LIBSPDM_DATA_LOCAL_PUBLIC_CERT_CHAIN, &parameter, peer->chain, size);
    uint8_t slots = 1;
    set(peer, LIBSPDM_DATA_LOCAL_SUPPORTED_SLOT_MASK, &slots, 1);
    if ((config->flags & SPDM_GET_CAPABILITIES_RESPONSE_FLAGS_GET_KEY_PAIR_INFO_CAP) != 0) {
        uint8_t pairs = 1, mel = SPDM_MEL_SPECIFICATION_DMTF;
        uint16_t usage = 0xF;
        spdm_key_pair_id_t id = 1;
        spdm_certificate_info_t info = 1;
        set(peer, LIBSPDM_DATA_TOTAL_KEY_PAIRS, &pairs, 1);
        set(peer, LIBSPDM_DATA_MEL_SPEC, &mel, 1);
        set(peer, LIBSPDM_DATA_LOCAL_KEY_PAIR_ID, &id, 1);
        set(peer, LIBSPDM_DATA_LOCAL_CERT_INFO, &info, 1);
        set(peer, LIBSPDM_DATA_LOCAL_KEY_USAGE_BIT_MASK, &usage, 2);
    }
    libspdm_register_vendor_get_id_callback_func(peer->spdm, vendor_id);
    libspdm_register_vendor_callback_func(peer->spdm, vendor_response);
    if (!libspdm_check_context(peer->spdm)) {
        ref_free(peer);
        return NULL;
    }
    return peer;
}

/* One data object for the responder; the size of its answer, 0 if there is none. */
size_t ref_handle(ref_peer *peer, const uint8_t *request, size_t request_size,
                  uint8_t *response, size_t response_size)
{
    if (request_size > sizeof(peer->inbound)) {
        return 0;
    }
    memcpy(peer->inbound, request, request_size);
    peer->inbound_size = request_size;
    peer->sent = 0;
    libspdm_return_t status = libspdm_responder_dispatch_message(peer->spdm);
    if (LIBSPDM_STATUS_IS_ERROR(status) && getenv("LIBSPDM_LOG") != NULL) {
        fprintf(stderr, "dispatch: %x\n", (unsigned)status);
    }
    if (!peer->sent || peer->outbound_size > response_size) {
        return 0;
    }
    memcpy(response, peer->outbound, peer->outbound_size);
    return peer->outbound_size;
}

/* LIBSPDM_RESPONSE_STATE_*: 0 normal, 1 busy, 2 not ready, 3 needs GET_VERSION. */
void ref_response_state(ref_peer *peer, uint32_t state)
{
    libspdm_response_state_t value = (libspdm_response_state_t)state;
    set(peer, LIBSPDM_DATA_RESPONSE_STATE, &value, sizeof(value));
}

/* From here on: what the samples expect of their host. */

static char keys[1024];

void ref_set_keys(const char *directory)
{
    snprintf(keys, sizeof(keys), "%s", directory);
}

bool libspdm_read_input_file(const char *file_name, void **file_data, size_t *file_size)
{
    char path[2048];
    snprintf(path, sizeof(path), "%s/%s", keys, file_name);
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        fprintf(stderr, "cannot open %s\n", path);
        return false;
    }
    fseek(file, 0, SEEK_END);
    *file_size = (size_t)ftell(file);
    rewind(file);
    *file_data = malloc(*file_size);
    bool good = *file_data != NULL && fread(*file_data, 1, *file_size, file) == *file_size;
    fclose(file);
    return good;
}

bool libspdm_write_output_file(const char *file_name, const void *file_data, size_t file_size)
{
    return true;
}

void libspdm_dump_hex_str(const uint8_t *buffer, size_t buffer_size)
{
}

void libspdm_debug_assert(const char *file_name, size_t line_number, const char *description)
{
    bool go_on = getenv("LIBSPDM_CONTINUE") != NULL;
    if (!go_on || getenv("LIBSPDM_LOG") != NULL) {
        fprintf(stderr, "LIBSPDM_ASSERT: %s(%zu): %s\n", file_name, line_number, description);
    }
    if (!go_on) {
        abort();
    }
}

void libspdm_debug_print(size_t error_level, const char *format, ...)
{
    if (getenv("LIBSPDM_LOG") == NULL) {
        return;
    }
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
}
