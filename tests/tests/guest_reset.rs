//! Resets of every kind in the middle of things: the function's, the machine's, the guest's, and the device process's own end.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use tests::guest::{DEVICE, SYSFS, Scene, Stage};

/// Locks and starts function 0 and leaves a secret in its private memory.
fn reach_run(stage: &mut Stage) {
    stage.check("rm -f /run/session");
    stage.tdispctl("lock");
    stage.tdispctl("start");
    let private = stage.bar(DEVICE, 2);
    stage.store(private, 0x5EC2_E700);
    assert_eq!(stage.load(private), 0x5EC2_E700);
}

/// A device as fresh as after power-on: nothing is locked, nothing of the secret is left, and it can be walked.
fn assert_fresh(stage: &mut Stage) {
    let private = stage.bar(DEVICE, 2);
    assert_eq!(stage.load(private), 0);
    stage.walk();
}

/// The digest of the certificate chain in slot 0.
fn chain_digest(stage: &mut Stage) -> String {
    let records = stage.check_json(&format!("tdispctl --device {DEVICE} --json identify"));
    let digest = records.iter().find_map(|record| record["facts"]["chain digest"].as_str());
    digest.unwrap_or_else(|| panic!("no chain digest in {records:#?}")).to_owned()
}

#[test]
fn a_function_reset_moves_a_running_interface_to_error_and_the_session_survives() {
    let Some(scene) = Scene::new("function_reset") else { return };
    let mut stage = scene.start();
    reach_run(&mut stage);
    stage.check(&format!("echo flr > {SYSFS}/reset_method && echo 1 > {SYSFS}/reset"));
    assert!(stage.tdispctl("state").contains("ERROR"));
    let private = stage.bar(DEVICE, 2);
    assert_eq!(stage.load(private), u32::MAX);
    stage.tdispctl("stop");
    assert_fresh(&mut stage);
    stage.finish();
}

#[test]
fn a_machine_reset_is_a_conventional_reset_of_the_device() {
    let Some(scene) = Scene::new("machine_reset") else { return };
    let mut stage = scene.start();
    reach_run(&mut stage);
    stage.guest.reset().unwrap();
    assert_fresh(&mut stage);
    stage.finish();
}

#[test]
fn a_rebooted_guest_finds_a_fresh_device() {
    let Some(scene) = Scene::new("reboot") else { return };
    let mut stage = scene.start();
    reach_run(&mut stage);
    stage.guest.reboot().unwrap();
    assert_fresh(&mut stage);
    stage.finish();
}

// QEMU 11.1 aborts when a vfio-user device with MSI-X is unplugged: this one has none.
#[test]
fn a_device_process_that_comes_back_can_be_plugged_in_again() {
    let Some(scene) = Scene::new("restart") else { return };
    let mut stage = scene.config("[[function]]\nmsix = false\n").unplugged().start();
    stage.plug();
    let identity = chain_digest(&mut stage);
    stage.walk();

    // In order, and then by a crash in the middle of RUN.
    stage.unplug();
    assert!(stage.stop_daemon().success());
    stage.start_daemon();
    stage.plug();
    assert_eq!(chain_digest(&mut stage), identity, "a state directory keeps the certificates");
    reach_run(&mut stage);
    let private = stage.bar(DEVICE, 2);
    stage.kill_daemon();
    assert_eq!(stage.load(private), u32::MAX, "the guest lives on and reads all ones");
    stage.unplug();
    stage.start_daemon();
    stage.plug();
    assert_fresh(&mut stage);
    stage.finish();
}
