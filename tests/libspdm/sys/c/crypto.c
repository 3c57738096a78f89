/* OpenSSL's view of keys, signatures and exchanges, for comparing it with ours. All return 1 for success. */
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

/* What a signature is over: `digest` is NULL for algorithms that hash by themselves, `context` for those without one. */
typedef struct {
    const char *digest;
    int pss;
    const uint8_t *context;
    size_t context_size;
    const uint8_t *bytes;
    size_t size;
} ref_message;

static int prepare(EVP_PKEY_CTX *settings, const ref_message *message)
{
    OSSL_PARAM context[] = {
        OSSL_PARAM_octet_string(OSSL_SIGNATURE_PARAM_CONTEXT_STRING, (void *)message->context, message->context_size),
        OSSL_PARAM_END,
    };

    if (message->context_size != 0 && EVP_PKEY_CTX_set_params(settings, context) != 1) {
        return 0;
    }
    return !message->pss
        || EVP_PKEY_CTX_set_rsa_padding(settings, RSA_PKCS1_PSS_PADDING) == 1
            && EVP_PKEY_CTX_set_rsa_pss_saltlen(settings, RSA_PSS_SALTLEN_DIGEST) == 1;
}

/* Checks a signature with a SubjectPublicKeyInfo. */
int ref_crypto_verify(const uint8_t *info, size_t info_size, const ref_message *message, const uint8_t *signature,
                      size_t signature_size)
{
    EVP_PKEY *key = d2i_PUBKEY(NULL, &info, (long)info_size);
    EVP_MD_CTX *running = EVP_MD_CTX_new();
    EVP_PKEY_CTX *settings = NULL;
    int good = key != NULL
        && EVP_DigestVerifyInit_ex(running, &settings, message->digest, NULL, NULL, key, NULL) == 1
        && prepare(settings, message)
        && EVP_DigestVerify(running, signature, signature_size, message->bytes, message->size) == 1;

    EVP_MD_CTX_free(running);
    EVP_PKEY_free(key);
    return good;
}

/* Signs with a PKCS#8 key; `signature_size` is the room and then what is used. */
int ref_crypto_sign(const uint8_t *pkcs8, size_t pkcs8_size, const ref_message *message, uint8_t *signature,
                    size_t *signature_size)
{
    EVP_PKEY *key = d2i_AutoPrivateKey(NULL, &pkcs8, (long)pkcs8_size);
    EVP_MD_CTX *running = EVP_MD_CTX_new();
    EVP_PKEY_CTX *settings = NULL;
    int good = key != NULL
        && EVP_DigestSignInit_ex(running, &settings, message->digest, NULL, NULL, key, NULL) == 1
        && prepare(settings, message)
        && EVP_DigestSign(running, signature, signature_size, message->bytes, message->size) == 1;

    EVP_MD_CTX_free(running);
    EVP_PKEY_free(key);
    return good;
}

/* Checks that one certificate issued another, names and signature. */
int ref_crypto_issued(const uint8_t *issuer, size_t issuer_size, const uint8_t *subject, size_t subject_size)
{
    X509 *above = d2i_X509(NULL, &issuer, (long)issuer_size);
    X509 *below = d2i_X509(NULL, &subject, (long)subject_size);
    int good = above != NULL && below != NULL
        && X509_NAME_cmp(X509_get_subject_name(above), X509_get_issuer_name(below)) == 0
        && X509_verify(below, X509_get0_pubkey(above)) == 1;

    X509_free(above);
    X509_free(below);
    return good;
}

/* A new key (`name` is an algorithm of OpenSSL, or EC with a curve) with its PKCS#8 and SubjectPublicKeyInfo. */
int ref_crypto_generate(const char *name, const char *curve, uint8_t *pkcs8, size_t *pkcs8_size)
{
    EVP_PKEY *key = curve != NULL ? EVP_PKEY_Q_keygen(NULL, NULL, name, curve) : EVP_PKEY_Q_keygen(NULL, NULL, name);
    PKCS8_PRIV_KEY_INFO *document = key != NULL ? EVP_PKEY2PKCS8(key) : NULL;
    int size = document != NULL ? i2d_PKCS8_PRIV_KEY_INFO(document, NULL) : -1;
    int good = size > 0 && (size_t)size <= *pkcs8_size && i2d_PKCS8_PRIV_KEY_INFO(document, &pkcs8) == size;

    *pkcs8_size = good ? (size_t)size : 0;
    PKCS8_PRIV_KEY_INFO_free(document);
    EVP_PKEY_free(key);
    return good;
}

/* The public half of a PKCS#8 key as exchanges send it: a point with its form byte, or an encapsulation key. */
int ref_crypto_public(const uint8_t *pkcs8, size_t pkcs8_size, uint8_t *public_key, size_t *public_size)
{
    EVP_PKEY *key = d2i_AutoPrivateKey(NULL, &pkcs8, (long)pkcs8_size);
    size_t room = *public_size;
    int good = key != NULL
        && EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, public_key, room, public_size) == 1;

    EVP_PKEY_free(key);
    return good;
}

/* The secret of a PKCS#8 key with the peer's point, with its form byte. */
int ref_crypto_derive(const uint8_t *pkcs8, size_t pkcs8_size, const uint8_t *point, size_t point_size, uint8_t *secret,
                      size_t *secret_size)
{
    EVP_PKEY *key = d2i_AutoPrivateKey(NULL, &pkcs8, (long)pkcs8_size);
    EVP_PKEY *peer = EVP_PKEY_new();
    EVP_PKEY_CTX *settings = key != NULL ? EVP_PKEY_CTX_new(key, NULL) : NULL;
    int good = settings != NULL && EVP_PKEY_copy_parameters(peer, key) == 1
        && EVP_PKEY_set1_encoded_public_key(peer, point, point_size) == 1 && EVP_PKEY_derive_init(settings) == 1
        && EVP_PKEY_derive_set_peer(settings, peer) == 1 && EVP_PKEY_derive(settings, secret, secret_size) == 1;

    EVP_PKEY_CTX_free(settings);
    EVP_PKEY_free(peer);
    EVP_PKEY_free(key);
    return good;
}

/* Secret and cipher text for an encapsulation key. */
int ref_crypto_encapsulate(const char *name, const uint8_t *public_key, size_t public_size, uint8_t *cipher_text,
                           size_t *cipher_text_size, uint8_t *secret, size_t *secret_size)
{
    EVP_PKEY *key = EVP_PKEY_new_raw_public_key_ex(NULL, name, NULL, public_key, public_size);
    EVP_PKEY_CTX *settings = key != NULL ? EVP_PKEY_CTX_new(key, NULL) : NULL;
    int good = settings != NULL && EVP_PKEY_encapsulate_init(settings, NULL) == 1
        && EVP_PKEY_encapsulate(settings, cipher_text, cipher_text_size, secret, secret_size) == 1;

    EVP_PKEY_CTX_free(settings);
    EVP_PKEY_free(key);
    return good;
}

/* The secret in a cipher text for a PKCS#8 key. */
int ref_crypto_decapsulate(const uint8_t *pkcs8, size_t pkcs8_size, const uint8_t *cipher_text, size_t cipher_text_size,
                           uint8_t *secret, size_t *secret_size)
{
    EVP_PKEY *key = d2i_AutoPrivateKey(NULL, &pkcs8, (long)pkcs8_size);
    EVP_PKEY_CTX *settings = key != NULL ? EVP_PKEY_CTX_new(key, NULL) : NULL;
    int good = settings != NULL && EVP_PKEY_decapsulate_init(settings, NULL) == 1
        && EVP_PKEY_decapsulate(settings, secret, secret_size, cipher_text, cipher_text_size) == 1;

    EVP_PKEY_CTX_free(settings);
    EVP_PKEY_free(key);
    return good;
}
