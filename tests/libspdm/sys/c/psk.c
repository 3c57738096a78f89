/* What the samples' pre-shared keys need: silence, and between two connections a clean slate. */
#include <string.h>

#include "hal/base.h"
#include "library/spdm_crypt_lib.h"

/* The samples fill their salt with ones for SPDM 1.3 and never empty it again, so that a connection in an earlier version
 * would get it too. */
extern uint8_t m_libspdm_my_salt0[LIBSPDM_MAX_HASH_SIZE];

/* What the samples call instead of printf. */
int ref_print(const char *format, ...)
{
    return 0;
}

void ref_reset_psk(void)
{
    memset(m_libspdm_my_salt0, 0, sizeof(m_libspdm_my_salt0));
}
