/* What mutual authentication needs: a responder that asks, and a requester with the samples' identity. */
#include <stdlib.h>
#include <string.h>

#include "hal/base.h"
#include "library/spdm_common_lib.h"
#include "library/spdm_requester_lib.h"
#include "library/spdm_responder_lib.h"
#include "spdm_device_secret_lib_internal.h"

static bool set(void *spdm, libspdm_data_type_t type, uint8_t slot, const void *data, size_t size)
{
    libspdm_data_parameter_t parameter;
    memset(&parameter, 0, sizeof(parameter));
    parameter.location = LIBSPDM_DATA_LOCATION_LOCAL;
    parameter.additional_data[0] = slot;
    return !LIBSPDM_STATUS_IS_ERROR(libspdm_set_data(spdm, type, &parameter, (void *)data, size));
}

/* From now on the responder asks: after CHALLENGE if `basic`, in KEY_EXCHANGE_RSP as `session` says
 * (MutAuthRequested). The chain goes into a buffer of the caller's. */
bool ref_ask_requester(void *spdm, bool basic, uint8_t session, uint8_t slot, uint8_t *chain, size_t chain_size)
{
    libspdm_register_cert_chain_buffer(spdm, chain, chain_size);
    return set(spdm, LIBSPDM_DATA_BASIC_MUT_AUTH_REQUESTED, slot, &basic, sizeof(basic))
           && set(spdm, LIBSPDM_DATA_MUT_AUTH_REQUESTED, slot, &session, sizeof(session));
}

/* The responder trusts this DER certificate, which has to outlive it. */
bool ref_trust(void *spdm, const uint8_t *root, size_t root_size)
{
    return set(spdm, LIBSPDM_DATA_PEER_PUBLIC_ROOT_CERT, 0, root, root_size);
}

/* The requester is the samples' in slot 0 and in `slot`. The chain is to be freed after the requester. */
void *ref_identify(void *spdm, uint32_t hash, uint16_t asym, uint8_t slot)
{
    void *chain = NULL;
    size_t size = 0;
    if (!libspdm_read_requester_public_certificate_chain(hash, asym, &chain, &size, NULL, NULL)) {
        return NULL;
    }
    uint8_t mask = (uint8_t)(1 | 1 << slot);
    if (!set(spdm, LIBSPDM_DATA_LOCAL_PUBLIC_CERT_CHAIN, 0, chain, size)
        || !set(spdm, LIBSPDM_DATA_LOCAL_PUBLIC_CERT_CHAIN, slot, chain, size)
        || !set(spdm, LIBSPDM_DATA_LOCAL_SUPPORTED_SLOT_MASK, 0, &mask, sizeof(mask))) {
        free(chain);
        return NULL;
    }
    return chain;
}

void ref_forget(void *chain)
{
    free(chain);
}

/* Both sides' public keys (SubjectPublicKeyInfo in DER), which have to outlive the peer. */
bool ref_know_keys(void *spdm, const uint8_t *own, size_t own_size, const uint8_t *other, size_t other_size)
{
    return set(spdm, LIBSPDM_DATA_LOCAL_PUBLIC_KEY, 0, own, own_size)
           && set(spdm, LIBSPDM_DATA_PEER_PUBLIC_KEY, 0, other, other_size);
}
