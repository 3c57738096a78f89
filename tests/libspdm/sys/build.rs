//! Builds libspdm and the shim with the OpenSSL that `openssl-sys` has built. `LIBSPDM_SRC` is the directory that holds
//! libspdm's `library/`; `qemu-config/testbed --libspdm` fetches it.

use std::error::Error;
use std::path::{Path, PathBuf};

/// Directories taken as a whole.
const DIRECTORIES: [&str; 17] = [
    "library/spdm_common_lib",
    "library/spdm_crypt_lib",
    "library/spdm_requester_lib",
    "library/spdm_responder_lib",
    "library/spdm_secured_message_lib",
    "library/spdm_transport_pcidoe_lib",
    "os_stub/cryptlib_openssl/cipher",
    "os_stub/cryptlib_openssl/der",
    "os_stub/cryptlib_openssl/hash",
    "os_stub/cryptlib_openssl/hmac",
    "os_stub/cryptlib_openssl/kdf",
    "os_stub/cryptlib_openssl/pem",
    "os_stub/cryptlib_openssl/rand",
    "os_stub/malloclib",
    "os_stub/memlib",
    "os_stub/spdm_crypt_ext_lib",
    "os_stub/spdm_device_secret_lib_sample",
];

/// `c` comes first: its `crt_support.h` stands in for the one that wants OpenSSL's sources.
const INCLUDES: [&str; 7] = [
    "include",
    "include/hal",
    "os_stub/include",
    "os_stub/cryptlib_openssl",
    "os_stub",
    "os_stub/spdm_crypt_ext_lib",
    "os_stub/spdm_device_secret_lib_sample",
];

/// What needs OpenSSL's internal headers, or what the shim's users never negotiate.
const ABSENT: [&str; 6] = [
    "LIBSPDM_EDDSA_ED25519_SUPPORT",
    "LIBSPDM_EDDSA_ED448_SUPPORT",
    "LIBSPDM_SM2_DSA_P256_SUPPORT",
    "LIBSPDM_SM2_KEY_EXCHANGE_P256_SUPPORT",
    "LIBSPDM_AEAD_SM4_128_GCM_SUPPORT",
    "LIBSPDM_SM3_256_SUPPORT",
];

fn sources(root: &Path, directory: &str) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let path = root.join(directory);
    let entries = std::fs::read_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, std::io::Error>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "c"));
    files.sort();
    Ok(files)
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=LIBSPDM_SRC");
    println!("cargo::rerun-if-changed=c");
    println!("cargo::rerun-if-changed=build.rs");
    let root = std::env::var_os("LIBSPDM_SRC").map(PathBuf::from).ok_or(
        "LIBSPDM_SRC is not set: run ci/interop, or eval \"$(qemu-config/testbed --libspdm)\" and export it",
    )?;
    let openssl =
        std::env::var_os("DEP_OPENSSL_INCLUDE").ok_or("openssl-sys does not say where its headers are")?;
    println!("cargo::rustc-env=LIBSPDM_KEYS={}", root.join("unit_test/sample_key").display());

    let mut build = cc::Build::new();
    build.include("c").include(openssl).includes(INCLUDES.map(|directory| root.join(directory)));
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|architecture| architecture == "aarch64") {
        build.define("LIBSPDM_CPU_AARCH64", None);
    } else {
        build.define("LIBSPDM_CPU_X64", None);
    }
    for name in ABSENT {
        build.define(name, "0");
    }
    // The samples print what they use a pre-shared key for, without end.
    build.define("printf", "ref_print");
    build.define("OPENSSL_SUPPRESS_DEPRECATED", None).debug(false).warnings(false);
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        // For measurements: as it is built for use, without its log and assertions.
        build.define("NDEBUG", None);
    } else {
        build.opt_level(1);
    }
    // The samples' event types are no list. Under other names nobody calls them: those of `c/events.c` are called.
    let mut samples = build.clone();
    samples.define("libspdm_event_get_types", "sample_event_get_types");
    samples.define("libspdm_event_subscribe", "sample_event_subscribe");
    let with_events = root.join("os_stub/spdm_device_secret_lib_sample/lib.c");
    samples.file(&with_events).try_compile("spdm_samples")?;
    for directory in DIRECTORIES {
        build.files(sources(&root, directory)?.into_iter().filter(|file| *file != with_events));
    }
    for file in sources(&root, "os_stub/cryptlib_openssl/pk")? {
        // Wants OpenSSL's internal headers; nothing here uses Edwards curves.
        if file.ends_with("ecd.c") {
            build.file(root.join("os_stub/cryptlib_null/pk/ecd.c"));
        } else {
            build.file(file);
        }
    }
    build.file(root.join("os_stub/platform_lib/time_linux.c"));
    build.file(root.join("os_stub/platform_lib/watchdog.c"));
    build.file(root.join("os_stub/rnglib/rng_linux.c"));
    build.files(sources(Path::new("."), "c")?);
    build.try_compile("spdm_reference")?;
    Ok(())
}
