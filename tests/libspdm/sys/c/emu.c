/* What spdm-emu's requester tells and asks libspdm beyond what every requester here does. */
#include <stdlib.h>
#include <string.h>

#include "hal/base.h"
#include "library/spdm_common_lib.h"
#include "library/spdm_requester_lib.h"
#include "spdm_device_secret_lib_internal.h"

typedef struct {
    uint32_t flags; /* of the responder */
    uint32_t base_asym;
    uint32_t base_hash;
    uint16_t requester_asym;
    uint8_t version;
    uint8_t several_keys;
} ref_negotiated;

static bool local(void *spdm, libspdm_data_type_t type, uint8_t slot, const void *data, size_t size)
{
    libspdm_data_parameter_t parameter;
    memset(&parameter, 0, sizeof(parameter));
    parameter.location = LIBSPDM_DATA_LOCATION_LOCAL;
    parameter.additional_data[0] = slot;
    return !LIBSPDM_STATUS_IS_ERROR(libspdm_set_data(spdm, type, &parameter, (void *)data, size));
}

static void connection(void *spdm, libspdm_data_type_t type, void *data, size_t size)
{
    libspdm_data_parameter_t parameter;
    memset(&parameter, 0, sizeof(parameter));
    parameter.location = LIBSPDM_DATA_LOCATION_CONNECTION;
    libspdm_get_data(spdm, type, &parameter, data, &size);
}

/* The measurement extension log's format. */
bool ref_offer_log(void *spdm)
{
    uint8_t dmtf = SPDM_MEL_SPECIFICATION_DMTF;
    return local(spdm, LIBSPDM_DATA_MEL_SPEC, 0, &dmtf, sizeof(dmtf));
}

/* What a connection has come to. */
void ref_negotiated_state(void *spdm, ref_negotiated *out)
{
    spdm_version_number_t version = 0;
    bool several_keys = false;

    memset(out, 0, sizeof(*out));
    connection(spdm, LIBSPDM_DATA_SPDM_VERSION, &version, sizeof(version));
    connection(spdm, LIBSPDM_DATA_CAPABILITY_FLAGS, &out->flags, sizeof(out->flags));
    connection(spdm, LIBSPDM_DATA_BASE_ASYM_ALGO, &out->base_asym, sizeof(out->base_asym));
    connection(spdm, LIBSPDM_DATA_BASE_HASH_ALGO, &out->base_hash, sizeof(out->base_hash));
    connection(spdm, LIBSPDM_DATA_REQ_BASE_ASYM_ALG, &out->requester_asym, sizeof(out->requester_asym));
    connection(spdm, LIBSPDM_DATA_MULTI_KEY_CONN_RSP, &several_keys, sizeof(several_keys));
    out->version = (uint8_t)(version >> SPDM_VERSION_NUMBER_SHIFT_BIT);
    out->several_keys = several_keys;
}

/* Gives the requester the sample identity of the negotiated algorithms in three slots. The chain has to outlive the
 * context: the caller frees it. NULL if there is none. */
void *ref_emu_identify(void *spdm, const ref_negotiated *state)
{
    void *chain = NULL;
    size_t size = 0;
    uint8_t slots = 0x07, model = SPDM_CERTIFICATE_INFO_CERT_MODEL_DEVICE_CERT;
    uint16_t usage = SPDM_KEY_USAGE_BIT_MASK_KEY_EX_USE | SPDM_KEY_USAGE_BIT_MASK_CHALLENGE_USE
                     | SPDM_KEY_USAGE_BIT_MASK_MEASUREMENT_USE | SPDM_KEY_USAGE_BIT_MASK_ENDPOINT_INFO_USE;

    if (!libspdm_read_requester_public_certificate_chain(state->base_hash, state->requester_asym, &chain,
                                                         &size, NULL, NULL)) {
        return NULL;
    }
    bool good = local(spdm, LIBSPDM_DATA_LOCAL_SUPPORTED_SLOT_MASK, 0, &slots, sizeof(slots));
    for (uint8_t slot = 0; slot < 3; slot++) {
        uint8_t pair = (uint8_t)(0xB0 + slot);
        good = local(spdm, LIBSPDM_DATA_LOCAL_PUBLIC_CERT_CHAIN, slot, chain, size) && good;
        good = local(spdm, LIBSPDM_DATA_LOCAL_KEY_PAIR_ID, slot, &pair, sizeof(pair)) && good;
        good = local(spdm, LIBSPDM_DATA_LOCAL_CERT_INFO, slot, &model, sizeof(model)) && good;
        good = local(spdm, LIBSPDM_DATA_LOCAL_KEY_USAGE_BIT_MASK, slot, &usage, sizeof(usage)) && good;
    }
    if (!good) {
        free(chain);
        return NULL;
    }
    return chain;
}

/* Sends the sample responder's chain of the negotiated algorithms to a slot, outside of a session if there is none. */
libspdm_return_t ref_set_sample_chain(void *spdm, const uint32_t *session, uint8_t slot,
                                      const ref_negotiated *state)
{
    void *chain = NULL;
    size_t size = 0;
    libspdm_return_t status;

    if (!libspdm_read_responder_public_certificate_chain(state->base_hash, state->base_asym, &chain, &size,
                                                         NULL, NULL)) {
        return LIBSPDM_STATUS_INVALID_CERT;
    }
    if (state->several_keys) {
        status = libspdm_set_certificate_ex(spdm, session, slot, chain, size,
                                            SPDM_CERTIFICATE_INFO_CERT_MODEL_DEVICE_CERT
                                            << SPDM_SET_CERTIFICATE_REQUEST_ATTRIBUTES_CERT_MODEL_OFFSET, 1);
    } else {
        status = libspdm_set_certificate(spdm, session, slot, chain, size);
    }
    free(chain);
    return status;
}

/* GET_CSR with nothing said. */
libspdm_return_t ref_get_csr(void *spdm, const ref_negotiated *state, uint8_t *csr, size_t *size)
{
    if (state->several_keys) {
        return libspdm_get_csr_ex(spdm, NULL, NULL, 0, NULL, 0, csr, size,
                                  SPDM_CERTIFICATE_INFO_CERT_MODEL_DEVICE_CERT, 1, NULL);
    }
    return libspdm_get_csr(spdm, NULL, NULL, 0, NULL, 0, csr, size);
}

void ref_emu_free_chain(void *chain)
{
    free(chain);
}
