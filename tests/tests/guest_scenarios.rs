//! The scenarios of `tests/scenarios` in a guest: the same commands through sysfs, a stock kernel and QEMU.
#![allow(clippy::panic)]

use tests::guest::{DEVICE, Scene};
use tests::scenario::{EVERYTHING, parse};

#[test]
fn every_scenario_holds_in_a_guest() {
    let Some(scene) = Scene::new("scenarios") else { return };
    let mut stage = scene.config(EVERYTHING).start();
    for scenario in parse(include_str!("../scenarios/dsm.txt")) {
        let input = scenario.input();
        let script = format!("tdispctl --device {DEVICE} --json shell <<'END'\n{input}END\ntrue");
        scenario.check(&stage.check(&script));
    }
    stage.walk();
    stage.finish();
}
