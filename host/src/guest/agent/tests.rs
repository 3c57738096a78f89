//! Every way in which a host, a TSM or a device can be wrong before START: the agent says which, starts nothing, and gives the function back.

use std::os::unix::net::UnixStream;
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use nix::errno::Errno;
use spdm::crypto::{AsymAlgorithm, HashAlgorithm, hash};
use spdm::identity::{PciName, generate};

use super::*;
use crate::guest::port::{Request, receive, send};

const KEY: [u8; 32] = [1; 32];
const NAME: PciName = PciName {
    vendor: 0x1af4,
    device: 0x1042,
    class: 0x01_8000,
    revision: 1,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
    serial: Some(5),
};

type Answer = Result<Vec<u8>, Errno>;

/// Answers until the agent is gone; what it was asked for.
fn host(
    mut stream: UnixStream,
    mut answer: impl FnMut(&Request) -> Answer + Send + 'static,
) -> JoinHandle<Vec<Op>> {
    spawn(move || {
        let mut asked = Vec::new();
        while let Some(request) = receive(&mut stream).unwrap() {
            asked.push(request.op);
            let answer = answer(&request);
            send(&mut stream, &request, answer.as_ref().map(Vec::as_slice).map_err(|errno| *errno)).unwrap();
        }
        asked
    })
}

/// A TSM with this key behind a host that does as it is told; `tell` has what it tells for each question.
fn tsm(
    key: [u8; 32],
    tell: impl Fn(&Ask) -> Result<Vec<u8>, &'static str> + Send + 'static,
) -> impl FnMut(&Request) -> Answer + Send + 'static {
    move |request| {
        if matches!(request.op, Op::Lock | Op::Unlock) {
            return Ok(Vec::new());
        }
        let (ask, _, tag) = sealed::open_request(&Key::new(&KEY).unwrap(), &request.body).unwrap();
        let told = tell(&ask);
        let told = told.as_ref().map(Vec::as_slice).map_err(|why| *why);
        Ok(sealed::answer(&Key::new(&key).unwrap(), &tag, told))
    }
}

/// What comes of a device that is to be accepted: the error, and what the host was asked for.
fn accept(answer: impl FnMut(&Request) -> Answer + Send + 'static, roots: &[RootPin]) -> (Error, Vec<Op>) {
    let (guest, other) = UnixStream::pair().unwrap();
    guest.set_nonblocking(true).unwrap();
    let host = host(other, answer);
    let view = View { name: NAME, bars: Vec::new(), msix: None, virtio: Vec::new() };
    let policy = Policy::parse("root = ['r']").unwrap();
    let mut output = Output::json(Box::new(std::io::sink()));
    let port = Port::new(guest, 0, Duration::from_secs(30));
    let mut agent = Agent::new(port, Key::new(&KEY).unwrap(), &mut output);
    let error = agent.accept(&view, &policy, roots).unwrap_err();
    drop(agent);
    (error, host.join().unwrap())
}

/// A TSM that tells what it should, up to the certificates of a device with this name.
fn up_to_certificates(
    name: PciName,
) -> (Vec<u8>, impl Fn(&Ask) -> Result<Vec<u8>, &'static str> + Send + 'static) {
    let certificates = generate(&name, AsymAlgorithm::EcdsaP384).unwrap().slot().certificates;
    let root = certificates[0].clone();
    let tell = move |ask: &Ask| match ask {
        Ask::State => Ok(vec![TdiState::CONFIG_LOCKED.0]),
        Ask::Certificates => Ok(certificates.concat()),
        Ask::Report | Ask::Start(_) | Ask::Measurements => Ok(b"nonsense".to_vec()),
    };
    (root, tell)
}

const GIVEN_BACK: [Op; 3] = [Op::Lock, Op::Ask, Op::Unlock];

#[test]
fn a_host_that_does_not_lock_is_asked_for_nothing_else() {
    let (error, asked) = accept(|_| Err(Errno::EPERM), &[]);
    assert!(matches!(error, Error::Transport { .. }), "{error}");
    assert_eq!(asked, [Op::Lock]);
}

#[test]
fn a_tsm_is_known_by_its_key() {
    let (error, asked) = accept(tsm([2; 32], |_| Ok(vec![1])), &[]);
    assert!(matches!(&error, Error::Verification(why) if why.contains("not the TSM's answer")), "{error}");
    assert_eq!(asked, GIVEN_BACK);
}

#[test]
fn the_state_has_to_be_locked() {
    for (state, kind) in
        [(vec![0], "check"), (vec![2], "check"), (vec![], "protocol"), (vec![1, 0], "protocol")]
    {
        let (error, asked) = accept(tsm(KEY, move |_| Ok(state.clone())), &[]);
        assert_eq!((error.kind(), asked.as_slice()), (kind, &GIVEN_BACK[..]), "{error}");
    }
}

#[test]
fn a_refusal_of_the_tsm_has_its_words() {
    let (error, asked) = accept(tsm(KEY, |_| Err("no session\u{1b}[2J")), &[]);
    assert_eq!(error.to_string(), "GET_DEVICE_INTERFACE_STATE refused: the TSM: no session\\u{1b}[2J");
    assert_eq!(asked, GIVEN_BACK);
}

#[test]
fn an_old_answer_is_none() {
    let (mut good, mut old) = (tsm(KEY, |_| Ok(vec![1])), None);
    let (error, asked) = accept(
        move |request| match request.op {
            Op::Ask => old.get_or_insert_with(|| good(request)).clone(),
            Op::Lock | Op::Unlock | Op::Change => Ok(Vec::new()),
        },
        &[],
    );
    let expected = "certificates: not the TSM's answer to this question";
    assert!(matches!(&error, Error::Verification(why) if why.contains(expected)), "{error}");
    assert_eq!(asked, [Op::Lock, Op::Ask, Op::Ask, Op::Unlock]);
}

#[test]
fn certificates_need_a_root_of_the_policy_and_the_functions_name() {
    let (_, tell) = up_to_certificates(NAME);
    let (error, _) = accept(tsm(KEY, tell), &[RootPin::Digest(vec![0; 48])]);
    assert!(matches!(&error, Error::Verification(why) if why.contains("none of the policy's")), "{error}");
    let (error, _) =
        accept(tsm(KEY, |ask| if *ask == Ask::State { Ok(vec![1]) } else { Ok(vec![0x30]) }), &[]);
    assert!(matches!(error, Error::Verification(_)), "{error}");
    let (root, tell) = up_to_certificates(PciName { device: 0x1043, ..NAME });
    let (error, asked) = accept(tsm(KEY, tell), &[RootPin::Certificate(root)]);
    assert!(matches!(&error, Error::Check(why) if why.contains("Device=1043")), "{error}");
    assert_eq!(asked, [Op::Lock, Op::Ask, Op::Ask, Op::Unlock]);
}

#[test]
fn evidence_has_to_be_some() {
    let (root, tell) = up_to_certificates(NAME);
    let digest = hash(&DefaultProvider::new(), HashAlgorithm::Sha384, &root).unwrap();
    let (error, asked) = accept(tsm(KEY, tell), &[RootPin::Digest(digest.as_ref().to_vec())]);
    assert!(matches!(&error, Error::Protocol(why) if why.contains("evidence")), "{error}");
    assert_eq!(asked, [Op::Lock, Op::Ask, Op::Ask, Op::Ask, Op::Unlock]);
}

#[test]
fn a_serial_number_may_be_hidden_from_the_guest_and_nothing_else() {
    let name = NAME.to_string();
    let without = PciName { serial: None, ..NAME }.to_string();
    assert!(of_function(&name, &name, true) && of_function(&name, &without, false));
    assert!(!of_function(&name, &without, true) && !of_function(&format!("{without}0"), &without, false));
}
