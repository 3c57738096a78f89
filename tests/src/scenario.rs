//! Scenarios as text: commands of `tdispctl shell`, and what each must come to. The same file is played in this process and by a
//! guest.
#![allow(clippy::panic, reason = "what fails here is the test")]

use serde_json::Value;

/// The device that the scenarios of `tests/scenarios/dsm.txt` are for: everything optional is on.
pub const EVERYTHING: &str = r#"
[pci]
ats = true
[ide]
selective_streams = 2
[tdisp]
requests = ["p2p", "mmio-attribute", "vdm"]
lock_flags = ["no-fw-update", "lock-msix", "bind-p2p", "all-request-redirect"]
[[function]]
updatable_pages = 4
"#;

/// Commands in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// What it shows.
    pub name: String,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    command: String,
    exit_code: u64,
    prints: String,
}

/// Every scenario of a file.
pub fn parse(text: &str) -> Vec<Scenario> {
    let mut scenarios: Vec<Scenario> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix("== ") {
            scenarios.push(Scenario { name: name.into(), steps: Vec::new() });
            continue;
        }
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        let (&[command, exit_code, prints], Some(scenario)) = (&fields[..], scenarios.last_mut()) else {
            panic!("'{line}' is not `command | exit code | text` of a scenario");
        };
        let exit_code = exit_code.parse().unwrap_or_else(|_| panic!("'{line}': no exit code"));
        scenario.steps.push(Step { command: command.into(), exit_code, prints: prints.into() });
    }
    scenarios
}

impl Scenario {
    /// What to give the shell.
    pub fn input(&self) -> String {
        self.steps.iter().map(|step| format!("{}\n", step.command)).collect()
    }

    /// Holds the JSON lines that the shell printed against what they must come to.
    pub fn check(&self, output: &str) {
        let mut steps = self.steps.iter();
        let mut lines = Vec::new();
        for line in output.lines() {
            lines.push(line);
            let record: Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("'{line}' is not JSON: {error}"));
            if record.get("type").and_then(Value::as_str) != Some("summary") {
                continue;
            }
            let Some(step) = steps.next() else { break };
            let exit_code = record.get("exit_code").and_then(Value::as_u64);
            let printed = lines.join("\n");
            let context = format!("scenario '{}', '{}' printed\n{printed}", self.name, step.command);
            assert_eq!(exit_code, Some(step.exit_code), "{context}");
            assert!(printed.contains(&step.prints), "no '{}' in {context}", step.prints);
            lines.clear();
        }
        let left: Vec<&str> = steps.map(|step| step.command.as_str()).collect();
        assert!(left.is_empty(), "scenario '{}' ended before {left:?}:\n{output}", self.name);
    }
}
