//! The walk in a guest: in one go by `tdispctl run`, and step by step with the guest's own loads and stores between the steps.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use tests::guest::{DEVICE, Scene, Stage};

#[test]
fn every_step_of_the_walk_holds_twice_in_a_row() {
    let Some(scene) = Scene::new("walk") else { return };
    let mut stage = scene.start();
    stage.walk();
    // Nothing is left behind that would make a second walk differ.
    stage.walk();
    stage.finish();
}

#[test]
fn pages_follow_the_state_and_the_session_spans_commands() {
    let Some(scene) = Scene::new("pages") else { return };
    let mut stage = scene.start();
    let private = stage.bar(DEVICE, 2);
    let shared = private + 0x8_0000;
    let registers = stage.bar(DEVICE, 0);
    let mut value = 0x0ACE_0000;
    let mut keeps = |stage: &mut Stage, address: u64| {
        value += 1;
        stage.store(address, value);
        stage.load(address) == value
    };

    assert_eq!(stage.load(registers), u32::from_le_bytes(*b"TDSP"));
    assert!(keeps(&mut stage, private) && keeps(&mut stage, shared), "CONFIG_UNLOCKED");

    stage.tdispctl("lock");
    assert_eq!(stage.load(private), u32::MAX, "CONFIG_LOCKED");
    assert_eq!(stage.load(registers), u32::MAX, "CONFIG_LOCKED");
    assert!(!keeps(&mut stage, private) && keeps(&mut stage, shared), "CONFIG_LOCKED");
    assert!(stage.tdispctl("state").contains("CONFIG_LOCKED"));

    let report = stage.tdispctl("report");
    assert!(
        report.to_lowercase().contains("private") && report.to_lowercase().contains("shared"),
        "{report}"
    );

    stage.tdispctl("start");
    assert!(stage.tdispctl("state").contains("RUN"));
    assert_eq!(stage.load(registers), u32::from_le_bytes(*b"TDSP"));
    assert!(keeps(&mut stage, private) && keeps(&mut stage, shared), "RUN");

    stage.check(&format!("setpci -s {DEVICE} COMMAND=0:4"));
    assert!(stage.tdispctl("state").contains("ERROR"));
    assert_eq!(stage.load(private), u32::MAX, "ERROR");
    assert!(keeps(&mut stage, shared), "ERROR");

    stage.tdispctl("stop");
    assert_eq!(stage.load(private), 0, "STOP scrubs private memory");
    assert!(keeps(&mut stage, private) && keeps(&mut stage, shared), "CONFIG_UNLOCKED again");
    stage.check("[ ! -e /run/session ]");
    stage.finish();
}
