//! Says, in every run of the workspace's tests, that libspdm's judgement is not among them.

use std::process::Command;

#[test]
#[ignore = "needs libspdm's C source and minutes to build it: run ci/interop"]
fn libspdm_agrees() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../ci/interop");
    let status = Command::new(script).status();
    assert!(status.is_ok_and(|status| status.success()), "ci/interop failed, see above");
}
