//! What `lspci` makes of a device, against how it looked when someone last looked at it closely.

use std::fs;
use std::path::Path;

use super::{DEVICE, Stage};

/// `lspci -vvv` decodes everything the device shows, and prints it as the golden file does whose name begins with `prefix`.
pub fn compare_lspci(stage: &mut Stage, prefix: &str) {
    let seen = stage.check(&format!("lspci -n -vvv -s {DEVICE} 2>/dev/null"));
    let seen = without_addresses(&seen);
    // pciutils has no word for virtio's capability of PCI configuration access, the fifth.
    let known = seen.replace("VirtIO: <unknown>", "VirtIO: PCI_CFG");
    for word in ["unhandled", "<?>", "Unknown", "unknown"] {
        assert!(!known.contains(word), "lspci does not know something:\n{seen}");
    }
    let version = stage.testbed().upstream_version("pciutils");
    let version = version.unwrap_or_else(|| panic!("no pciutils in the testbed"));
    let name = format!("{prefix}lspci-{version}.txt");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(&name);
    let fresh = stage.directory().join(&name);
    fs::write(&fresh, &seen).unwrap_or_else(|error| panic!("{}: {error}", fresh.display()));
    let expected = fs::read_to_string(&golden).unwrap_or_else(|_| {
        panic!(
            "no golden file for pciutils {version}. Look at {} and, if it is right, copy it to {}:\n{seen}",
            fresh.display(),
            golden.display()
        )
    });
    assert!(
        seen == expected,
        "lspci shows (left in {}):\n{seen}\n--- expected:\n{expected}",
        fresh.display()
    );
}

/// Firmware chooses the BARs' addresses.
fn without_addresses(listing: &str) -> String {
    let mut text = String::new();
    for line in listing.lines() {
        match line.split_once("Memory at ") {
            Some((before, after)) if line.contains("Region ") => {
                let rest = after.split_once(' ').map_or("", |(_, rest)| rest);
                text.push_str(&format!("{before}Memory at ADDRESS {rest}\n"));
            }
            _ => text.push_str(&format!("{line}\n")),
        }
    }
    text
}
