//! A small client of QEMU's machine protocol: commands, their answers, and the events between them.

use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Commands answer at once; one that plugs in a device waits for the device's server.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The socket broke.
    #[error("QMP: {0}")]
    Io(#[from] io::Error),
    /// QEMU closed the socket.
    #[error("QEMU has gone away")]
    Closed,
    /// QEMU sent something that is not JSON.
    #[error("QMP: {0}")]
    Json(#[from] serde_json::Error),
    /// Nothing came in time.
    #[error("QMP: no {what} within {} s", .timeout.as_secs())]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        timeout: Duration,
    },
    /// QEMU refused the command.
    #[error("QEMU refuses {command}: {reason}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's description.
        reason: String,
    },
}

/// A connection in command mode.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
    /// The start of a line whose end has not come yet.
    partial: Vec<u8>,
    events: VecDeque<Value>,
}

impl Qmp {
    /// Takes the greeting and leaves negotiation mode.
    pub(crate) fn new(stream: UnixStream) -> Result<Self, QmpError> {
        stream.set_read_timeout(Some(POLL))?;
        let mut qmp = Self { stream: BufReader::new(stream), partial: Vec::new(), events: VecDeque::new() };
        qmp.next(Instant::now() + ANSWER_TIMEOUT, "greeting", ANSWER_TIMEOUT)?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns its result.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let request = json!({ "execute": command, "arguments": arguments });
        self.stream.get_mut().write_all(format!("{request}\n").as_bytes())?;
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            let mut message = self.next(deadline, command, ANSWER_TIMEOUT)?;
            if let Some(error) = message.get("error") {
                let reason =
                    error.get("desc").and_then(Value::as_str).unwrap_or("no reason given").to_owned();
                return Err(QmpError::Refused { command: command.to_owned(), reason });
            }
            if let Some(result) = message.get_mut("return") {
                return Ok(result.take());
            }
            self.events.push_back(message);
        }
    }

    /// Waits for an event of this name that `accept` takes, and returns its data. Events before it are dropped.
    pub fn wait_for_event(
        &mut self,
        name: &str,
        timeout: Duration,
        accept: impl Fn(&Value) -> bool,
    ) -> Result<Value, QmpError> {
        let deadline = Instant::now() + timeout;
        loop {
            let mut message = match self.events.pop_front() {
                Some(event) => event,
                None => self.next(deadline, name, timeout)?,
            };
            if message.get("event").and_then(Value::as_str) == Some(name) {
                let data = message.get_mut("data").map(Value::take).unwrap_or_default();
                if accept(&data) {
                    return Ok(data);
                }
            }
        }
    }

    fn next(&mut self, deadline: Instant, what: &str, timeout: Duration) -> Result<Value, QmpError> {
        loop {
            match self.stream.read_until(b'\n', &mut self.partial) {
                Ok(_) if self.partial.last() == Some(&b'\n') => {
                    let message = serde_json::from_slice(&self.partial);
                    self.partial.clear();
                    return Ok(message?);
                }
                Ok(_) => return Err(QmpError::Closed),
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
                {
                    if Instant::now() >= deadline {
                        return Err(QmpError::Timeout { what: what.to_owned(), timeout });
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// A QEMU that greets, then answers each request with the next of these lines.
    fn qemu(answers: &'static [&'static str]) -> Qmp {
        let (host, guest) = UnixStream::pair().unwrap();
        thread::spawn(move || {
            let mut guest = BufReader::new(guest);
            guest.get_mut().write_all(b"{\"QMP\": {}}\n").unwrap();
            for answer in ["{\"return\": {}}\n"].iter().chain(answers) {
                guest.read_line(&mut String::new()).unwrap();
                guest.get_mut().write_all(answer.as_bytes()).unwrap();
            }
        });
        Qmp::new(host).unwrap()
    }

    #[test]
    fn events_between_are_kept_for_later() {
        let mut qmp = qemu(&["{\"event\": \"RESET\", \"data\": {\"guest\": false}}\n{\"return\": 5}\n"]);
        assert_eq!(qmp.execute("stop", json!({})).unwrap(), json!(5));
        let data = qmp.wait_for_event("RESET", Duration::from_secs(1), |_| true).unwrap();
        assert_eq!(data, json!({"guest": false}));
    }

    #[test]
    fn a_refusal_says_why() {
        let mut qmp = qemu(&["{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such bus\"}}\n"]);
        let error = qmp.execute("device_add", json!({})).unwrap_err();
        assert_eq!(error.to_string(), "QEMU refuses device_add: no such bus");
    }

    #[test]
    fn a_quit_is_noticed() {
        let mut qmp = qemu(&["{\"ret"]);
        assert!(matches!(qmp.execute("quit", json!({})), Err(QmpError::Closed)));
    }
}
