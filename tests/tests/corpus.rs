//! Every file of the fuzz corpus through its target, as it is and in variants made from it, the same ones every time.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use tests::fuzz::{TARGETS, Target, seeds};

/// The whole corpus stays below this, in bytes.
const LARGEST_CORPUS: u64 = 300_000;

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus")).join(target)
}

/// Pseudo-random numbers (xorshift64), the same ones for the same start.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}

/// The n-th variant of an input.
fn variant(input: &[u8], n: usize) -> Vec<u8> {
    let start =
        input.iter().fold(n as u64 + 1, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3));
    let mut numbers = Numbers(start | 1);
    let mut out = input.to_vec();
    for _ in 0..=numbers.below(3) {
        let at = numbers.below(out.len());
        let length = 1 + numbers.below((out.len() - at).min(32));
        match numbers.below(6) {
            0 if !out.is_empty() => out[at] ^= 1 << numbers.below(8),
            1 if !out.is_empty() => out[at] = [0, 1, 0x7F, 0x80, 0xFF][numbers.below(5)],
            2 => out.truncate(at),
            3 if !out.is_empty() => {
                let piece = out[at..at + length].to_vec();
                out.splice(at..at, piece);
            }
            4 if !out.is_empty() => drop(out.drain(at..at + length)),
            _ => out.insert(at, numbers.below(256) as u8),
        }
    }
    out
}

fn replay(target: &Target) {
    let mut files: Vec<_> =
        std::fs::read_dir(corpus(target.name)).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} has no corpus", target.name);
    for file in files {
        let input = std::fs::read(&file).unwrap();
        for n in 0..=target.variants {
            let bytes = if n == 0 { input.clone() } else { variant(&input, n) };
            if catch_unwind(AssertUnwindSafe(|| (target.run)(&bytes))).is_err() {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                panic!("{}, variant {n} of {}: {hex}", target.name, file.display());
            }
        }
    }
}

macro_rules! replays {
    ($($name:ident,)*) => {
        $(#[test]
        fn $name() {
            replay(TARGETS.iter().find(|target| target.name == stringify!($name)).unwrap());
        })*

        /// Names of the tests above.
        const REPLAYED: &[&str] = &[$(stringify!($name)),*];
    };
}

replays! {
    certificate_chain,
    config_toml,
    control_request,
    cxl_message,
    device_traffic,
    disk_queue,
    doe_object,
    guest_message,
    ide_km_object,
    interface_report,
    session_file,
    spdm_frame,
    spdm_man_in_the_middle,
    spdm_requester,
    spdm_responder_clear,
    spdm_responder_in_session,
    tdisp_message,
    vfio_user_connection,
}

#[test]
fn every_target_has_a_test_a_corpus_and_a_program() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(targets, REPLAYED.iter().map(|name| (*name).to_owned()).collect());
    let names = |path: &str| -> BTreeSet<String> {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
        let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        std::fs::read_dir(path).unwrap().map(|file| stem(file.unwrap().path())).collect()
    };
    assert_eq!(targets, names("corpus"));
    assert_eq!(targets, names("fuzz/fuzz_targets"));
    let size = |target: &String| -> u64 {
        std::fs::read_dir(corpus(target)).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
    };
    let total: u64 = targets.iter().map(size).sum();
    assert!(total < LARGEST_CORPUS, "the corpus has {total} bytes");
}

/// `cargo test -p tests --test corpus -- --ignored`: writes the seeds anew, after a change of what a target takes.
#[test]
#[ignore = "writes into the source tree"]
fn write_seeds() {
    for target in TARGETS {
        let directory = corpus(target.name);
        std::fs::create_dir_all(&directory).unwrap();
        for (n, seed) in seeds::of(target.name).into_iter().enumerate() {
            std::fs::write(directory.join(format!("seed-{n:02}")), seed).unwrap();
        }
    }
}
