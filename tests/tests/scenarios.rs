//! Every scenario in this process; `guest_scenarios.rs` has a guest play them.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use tdispctl::cli::Cli;
use tdispctl::output::Output;
use tdispctl::shell;
use tdispctl::transport::vfio_user::VfioUser;
use tdispctl::walk::Walk;
use tests::rig::Rig;
use tests::scenario::{EVERYTHING, Scenario, parse};

fn scenarios() -> Vec<Scenario> {
    let scenarios = parse(include_str!("../scenarios/dsm.txt"));
    assert!(scenarios.len() >= 10, "a file that lost its scenarios");
    scenarios
}

#[derive(Clone, Default)]
struct Printed(Rc<RefCell<Vec<u8>>>);

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn every_scenario_holds_in_this_process() {
    for scenario in scenarios() {
        let rig = Rig::with(EVERYTHING, 1);
        let socket = rig.socket(0).to_str().unwrap();
        let cli = Cli::parse_from(["tdispctl", "--vfio-user", socket, "shell"]);
        let transport = VfioUser::open(rig.socket(0), Duration::from_secs(2)).unwrap();
        let printed = Printed::default();
        let output = Output::json(Box::new(printed.clone()));
        let mut walk = Walk::new(Box::new(transport), cli.options, output).unwrap();
        shell::run(&mut walk, scenario.input().as_bytes());
        walk.close();
        scenario.check(&String::from_utf8(printed.0.take()).unwrap());
    }
}
