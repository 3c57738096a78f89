#!/bin/sh
# Makes the identities in this directory with the openssl command (3.0 or later): for each algorithm a root, a leaf
# under it, and the leaf's key. The forms of the keys and the order of the chains differ on purpose.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

# NAME, options of `openssl req` for the root's signature, options of `openssl x509` for the leaf's
identity() {
    name=$1
    openssl req -x509 -key "$work/root.key" -out "$work/root.pem" -days 36500 -subj "/CN=$name root" $2 \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
    openssl req -new -key "$work/leaf.key" -out "$work/leaf.csr" -subj "/CN=$name leaf"
    printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n' >"$work/leaf.ext"
    openssl x509 -req -in "$work/leaf.csr" -CA "$work/root.pem" -CAkey "$work/root.key" -days 36500 $2 \
        -extfile "$work/leaf.ext" -out "$work/leaf.pem"
}
rsa() { openssl genrsa -out "$work/root.key" "$1"; openssl genrsa -out "$work/leaf.key" "$1"; }
curve() {
    openssl ecparam -genkey -name "$1" -out "$work/root.key"
    openssl ecparam -genkey -name "$1" -out "$work/leaf.key"
}
der() { openssl x509 -in "$1" -outform DER; }

rsa 2048
identity rsa2048 -sha256
openssl rsa -in "$work/leaf.key" -traditional -out rsa2048.key.pem
cat "$work/root.pem" "$work/leaf.pem" >rsa2048.chain.pem

rsa 3072
identity rsa3072 "-sha384 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest"
openssl pkcs8 -topk8 -nocrypt -in "$work/leaf.key" -out rsa3072.key.pem
cat "$work/leaf.pem" "$work/root.pem" >rsa3072.chain.pem

rsa 4096
identity rsa4096 -sha512
openssl rsa -in "$work/leaf.key" -traditional -outform DER -out rsa4096.key.der
{ der "$work/root.pem"; der "$work/leaf.pem"; } >rsa4096.chain.der

curve prime256v1
identity p256 -sha384
cp "$work/leaf.key" p256.key.pem
{ der "$work/leaf.pem"; der "$work/root.pem"; } >p256.chain.der

curve secp384r1
identity p384 -sha256
openssl ec -in "$work/leaf.key" -no_public -outform DER -out p384.key.der
cat "$work/root.pem" "$work/leaf.pem" >p384.chain.pem

curve secp521r1
identity p521 -sha512
openssl ec -in "$work/leaf.key" -out p521.key.pem
cat "$work/root.pem" "$work/leaf.pem" >p521.chain.pem

openssl genpkey -algorithm ed25519 -out "$work/root.key"
openssl genpkey -algorithm ed25519 -out "$work/leaf.key"
identity ed25519 ""
openssl pkcs8 -topk8 -nocrypt -in "$work/leaf.key" -outform DER -out ed25519.key.der
cat "$work/root.pem" "$work/leaf.pem" >ed25519.chain.pem
