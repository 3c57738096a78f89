/* Stands in for libspdm's own header of this name, which declares a C library for the bundled OpenSSL: here the
 * system's C library and OpenSSL are used. */
#ifndef CRT_SUPPORT_H
#define CRT_SUPPORT_H

#include <ctype.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <base.h>
#include "library/debuglib.h"
#include "library/memlib.h"

#define LIBSPDM_VA_LIST va_list
#define LIBSPDM_VA_START va_start
#define LIBSPDM_VA_ARG va_arg
#define LIBSPDM_VA_END va_end

#endif
