//! The host's end of the guest's command port: sends a script, receives its output and exit code (the other end is `guest/init`).

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// The guest's terminal layer drops what exceeds its 4096-byte buffer.
const LONGEST_REQUEST: usize = 4000;
/// How often a wait looks whether the guest is still alive.
pub(crate) const POLL: Duration = Duration::from_millis(100);

/// What a script printed and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit code; 137 if it was killed because its time was up.
    pub code: i32,
    /// Standard output; what is not UTF-8 is replaced.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
}

/// Why a script's outcome is unknown.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// The port broke.
    #[error("the guest's command port: {0}")]
    Io(#[from] io::Error),
    /// QEMU closed the port.
    #[error("the guest's command port was closed")]
    Closed,
    /// Nothing came in time.
    #[error("no answer from the guest within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The script does not fit into one request.
    #[error("a script of {0} bytes is too long for the command port; put it into the initramfs")]
    TooLong(usize),
    /// An answer that init does not give.
    #[error("unexpected answer of the guest's init: '{0}'")]
    Answer(String),
    /// The guest is gone; the caller's watch says why.
    #[error("{0}")]
    Gone(String),
}

/// Called while waiting; an answer ends the wait and says why the guest cannot answer any more.
pub(crate) type Watch<'a> = &'a mut dyn FnMut() -> Option<String>;

#[derive(Debug)]
pub(crate) struct Shell {
    stream: UnixStream,
    mark: String,
    received: Vec<u8>,
}

impl Shell {
    pub(crate) fn new(stream: UnixStream, mark: &str) -> io::Result<Self> {
        stream.set_read_timeout(Some(POLL))?;
        Ok(Self { stream, mark: mark.to_owned(), received: Vec::new() })
    }

    /// Waits for the line with which init begins; what came before it (an earlier boot's rest) is dropped.
    pub(crate) fn wait_until_ready(&mut self, timeout: Duration, watch: Watch<'_>) -> Result<(), ShellError> {
        let deadline = Deadline::new(timeout);
        loop {
            let (_, word) = self.next_mark(&deadline, watch, &mut |_| {})?;
            if word == "ready" {
                return Ok(());
            }
        }
    }

    /// Runs a script. `line` gets each line of its standard output as it comes.
    pub(crate) fn run(
        &mut self,
        script: &str,
        timeout: Duration,
        watch: Watch<'_>,
        line: &mut dyn FnMut(&str),
    ) -> Result<Output, ShellError> {
        // The guest kills the script first, so that it can take the next one.
        let request = format!("{} {}\n", timeout.as_secs().max(1), base64(script.as_bytes()));
        if request.len() > LONGEST_REQUEST {
            return Err(ShellError::TooLong(script.len()));
        }
        self.stream.write_all(request.as_bytes())?;
        let deadline = Deadline::new(timeout + Duration::from_secs(10));
        let (stdout, word) = self.next_mark(&deadline, watch, line)?;
        if word != "stdout" {
            return Err(ShellError::Answer(word));
        }
        let (stderr, word) = self.next_mark(&deadline, watch, &mut |_| {})?;
        let code = word.strip_prefix("exit ").and_then(|code| code.parse().ok());
        let code = code.ok_or(ShellError::Answer(word))?;
        Ok(Output { code, stdout, stderr })
    }

    /// The text up to the next line that starts with the mark, and the words behind the mark.
    fn next_mark(
        &mut self,
        deadline: &Deadline,
        watch: Watch<'_>,
        line: &mut dyn FnMut(&str),
    ) -> Result<(String, String), ShellError> {
        let mut text = String::new();
        // Init puts a newline before every mark; it belongs to the text only if the text did not end with one.
        let mut held: Option<String> = None;
        loop {
            let next = self.next_line(deadline, watch)?;
            if let Some(words) = next.strip_prefix(&self.mark) {
                if let Some(last) = held.filter(|last| last != "\n") {
                    line(last.trim_end_matches('\n'));
                    text.push_str(last.strip_suffix('\n').unwrap_or(&last));
                }
                return Ok((text, words.trim().to_owned()));
            }
            if let Some(previous) = held.replace(next) {
                line(previous.trim_end_matches('\n'));
                text.push_str(&previous);
            }
        }
    }

    fn next_line(&mut self, deadline: &Deadline, watch: Watch<'_>) -> Result<String, ShellError> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(watch().map_or(ShellError::Closed, ShellError::Gone)),
                Ok(count) => self.received.extend(chunk.iter().take(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Some(reason) = watch() {
                        return Err(ShellError::Gone(reason));
                    }
                    deadline.check()?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

struct Deadline {
    timeout: Duration,
    at: Instant,
}

impl Deadline {
    fn new(timeout: Duration) -> Self {
        Self { timeout, at: Instant::now() + timeout }
    }

    fn check(&self) -> Result<(), ShellError> {
        if Instant::now() < self.at { Ok(()) } else { Err(ShellError::Timeout(self.timeout)) }
    }
}

/// RFC 4648 §4, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits =
            group.iter().enumerate().fold(0, |bits, (at, byte)| bits | u32::from(*byte) << (16 - 8 * at));
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit)) & 63;
            let symbol = ALPHABET.get(usize::try_from(index).unwrap_or_default()).copied().unwrap_or(b'=');
            text.push(if digit <= group.len() { char::from(symbol) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn base64_matches_the_rfcs_vectors() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, encoded) in vectors {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    /// A shell whose guest answers the first request with these bytes.
    fn answered(bytes: &'static [u8]) -> (Shell, thread::JoinHandle<String>) {
        let (host, mut guest) = UnixStream::pair().unwrap();
        let thread = thread::spawn(move || {
            let mut request = [0; 256];
            let count = guest.read(&mut request).unwrap();
            for byte in bytes {
                guest.write_all(&[*byte]).unwrap();
            }
            String::from_utf8(request[..count].to_vec()).unwrap()
        });
        (Shell::new(host, "MARK").unwrap(), thread)
    }

    fn run(bytes: &'static [u8]) -> (Result<Output, ShellError>, Vec<String>) {
        let (mut shell, thread) = answered(bytes);
        let mut lines = Vec::new();
        let result =
            shell.run("foo", Duration::from_secs(7), &mut || None, &mut |line| lines.push(line.to_owned()));
        assert_eq!(thread.join().unwrap(), "7 Zm9v\n");
        (result, lines)
    }

    #[test]
    fn output_comes_back_as_printed() {
        let (output, lines) = run(b"one\ntwo\n\nMARK stdout\noops\nMARK exit 3\n");
        let expected = Output { code: 3, stdout: "one\ntwo\n".into(), stderr: "oops".into() };
        assert_eq!(output.unwrap(), expected);
        assert_eq!(lines, ["one", "two"]);
    }

    #[test]
    fn no_output_is_empty_and_blank_lines_stay() {
        let (output, lines) = run(b"\nMARK stdout\n\n\n\nMARK exit 0\n");
        assert_eq!(output.unwrap(), Output { code: 0, stdout: String::new(), stderr: "\n\n".into() });
        assert_eq!(lines, [""; 0]);
    }

    #[test]
    fn a_closed_port_is_an_error_with_the_watchs_reason() {
        let (result, _) = run(b"half a line");
        assert!(matches!(result, Err(ShellError::Closed)), "{result:?}");
        let (mut shell, thread) = answered(b"");
        let watch = &mut || Some("it is dead".to_owned());
        let result = shell.run("foo", Duration::from_secs(7), watch, &mut |_| {});
        assert_eq!(result.unwrap_err().to_string(), "it is dead");
        thread.join().unwrap();
    }

    #[test]
    fn a_long_script_is_refused_before_it_is_sent() {
        let (host, _guest) = UnixStream::pair().unwrap();
        let mut shell = Shell::new(host, "MARK").unwrap();
        let result = shell.run(&"x".repeat(3000), Duration::from_secs(1), &mut || None, &mut |_| {});
        assert!(matches!(result, Err(ShellError::TooLong(3000))));
    }
}
