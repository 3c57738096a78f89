//! Every data type and action, and the pin's automatic mask.

use rustix::event::{EventfdFlags, eventfd};

use super::*;

fn armed(initial: u32) -> OwnedFd {
    eventfd(initial, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

/// What was signalled since the last look.
fn count(fd: &OwnedFd) -> u64 {
    let mut bytes = [0; 8];
    match rustix::io::read(fd, &mut bytes) {
        Ok(_) => u64::from_ne_bytes(bytes),
        Err(_) => 0,
    }
}

fn set(kind: IrqKind, action: IrqAction, data: IrqData<'_>, start: u32, count: u32) -> IrqSet<'_> {
    IrqSet { kind, action, data, start, count }
}

fn arm(irqs: &mut Irqs, kind: IrqKind, start: u32, fds: &[&OwnedFd]) -> Result<(), Errno> {
    let clones: Vec<_> = fds.iter().map(|fd| fd.try_clone().unwrap()).collect();
    irqs.set(&set(kind, IrqAction::Trigger, IrqData::Eventfd, start, fds.len() as u32), 8, clones)
}

fn act(irqs: &mut Irqs, kind: IrqKind, action: IrqAction, start: u32, count: u32) -> Result<(), Errno> {
    irqs.set(&set(kind, action, IrqData::None, start, count), 8, Vec::new())
}

#[test]
fn vectors_are_armed_triggered_replaced_and_disarmed() {
    let (first, second) = (armed(4), armed(8));
    let mut irqs = Irqs::default();
    irqs.trigger(IrqKind::Msix, 0);
    arm(&mut irqs, IrqKind::Msix, 0, &[&first, &second]).unwrap();
    irqs.trigger(IrqKind::Msix, 1);
    irqs.trigger(IrqKind::Msix, 2);
    irqs.trigger(IrqKind::Msix, u16::MAX);
    irqs.trigger(IrqKind::Msi, 0);
    assert_eq!((count(&first), count(&second)), (4, 9));

    act(&mut irqs, IrqKind::Msix, IrqAction::Trigger, 1, 1).unwrap();
    assert_eq!((count(&first), count(&second)), (0, 1));
    let chosen = set(IrqKind::Msix, IrqAction::Trigger, IrqData::Bool(&[1, 0]), 0, 2);
    irqs.set(&chosen, 8, Vec::new()).unwrap();
    assert_eq!((count(&first), count(&second)), (1, 0));

    arm(&mut irqs, IrqKind::Msix, 0, &[&second]).unwrap();
    irqs.trigger(IrqKind::Msix, 0);
    assert_eq!((count(&first), count(&second)), (0, 1));

    let gap = set(IrqKind::Msix, IrqAction::Trigger, IrqData::Eventfd, 0, 1);
    irqs.set(&gap, 8, Vec::new()).unwrap();
    assert!(!irqs.is_armed(IrqKind::Msix, 0) && irqs.is_armed(IrqKind::Msix, 1));
    act(&mut irqs, IrqKind::Msix, IrqAction::Trigger, 0, 0).unwrap();
    irqs.trigger(IrqKind::Msix, 1);
    assert_eq!(count(&second), 0);
}

#[test]
fn a_masked_vector_waits() {
    let fd = armed(0);
    let mut irqs = Irqs::default();
    arm(&mut irqs, IrqKind::Msix, 3, &[&fd]).unwrap();
    act(&mut irqs, IrqKind::Msix, IrqAction::Mask, 3, 1).unwrap();
    irqs.trigger(IrqKind::Msix, 3);
    irqs.trigger(IrqKind::Msix, 3);
    assert_eq!(count(&fd), 0);
    act(&mut irqs, IrqKind::Msix, IrqAction::Unmask, 3, 1).unwrap();
    assert_eq!(count(&fd), 1, "pending once, however often it was raised");
    act(&mut irqs, IrqKind::Msix, IrqAction::Unmask, 3, 1).unwrap();
    assert_eq!(count(&fd), 0);
}

#[test]
fn the_pin_masks_itself_and_comes_back_while_asserted() {
    let fd = armed(0);
    let mut irqs = Irqs::default();
    irqs.set_intx_level(true);
    arm(&mut irqs, IrqKind::Intx, 0, &[&fd]).unwrap();
    assert_eq!(count(&fd), 1, "asserted before it was armed");
    irqs.set_intx_level(true);
    assert_eq!(count(&fd), 0, "masked itself");
    act(&mut irqs, IrqKind::Intx, IrqAction::Unmask, 0, 1).unwrap();
    assert_eq!(count(&fd), 1, "still asserted");
    irqs.set_intx_level(false);
    act(&mut irqs, IrqKind::Intx, IrqAction::Unmask, 0, 1).unwrap();
    assert_eq!(count(&fd), 0);
    act(&mut irqs, IrqKind::Intx, IrqAction::Mask, 0, 1).unwrap();
    irqs.set_intx_level(true);
    assert_eq!(count(&fd), 0);
    act(&mut irqs, IrqKind::Intx, IrqAction::Unmask, 0, 1).unwrap();
    assert_eq!(count(&fd), 1);
}

#[test]
fn kvm_unmasks_the_pin_through_a_descriptor() {
    let (fd, resample) = (armed(0), armed(0));
    let mut irqs = Irqs::default();
    irqs.set_intx_level(true);
    arm(&mut irqs, IrqKind::Intx, 0, &[&fd]).unwrap();
    let unmask = set(IrqKind::Intx, IrqAction::Unmask, IrqData::Eventfd, 0, 1);
    irqs.set(&unmask, 1, vec![resample.try_clone().unwrap()]).unwrap();
    assert_eq!(count(&fd), 1);
    irqs.poll_intx_unmask();
    assert_eq!(count(&fd), 0, "not signalled yet");
    rustix::io::write(&resample, &1u64.to_ne_bytes()).unwrap();
    irqs.poll_intx_unmask();
    assert_eq!((count(&fd), count(&resample)), (1, 0));
    act(&mut irqs, IrqKind::Intx, IrqAction::Trigger, 0, 0).unwrap();
    assert!(irqs.intx_unmask_fd().is_none());
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let fd = armed(0);
    let mut irqs = Irqs::default();
    arm(&mut irqs, IrqKind::Msix, 0, &[&fd]).unwrap();
    let fds = |count: usize| (0..count).map(|_| armed(0)).collect::<Vec<_>>();
    use {IrqAction::*, IrqData::*};
    let cases = [
        ("behind the last", set(IrqKind::Msix, Trigger, None, 7, 2), 0),
        ("start behind the last", set(IrqKind::Msix, Trigger, Eventfd, 9, 1), 1),
        ("too few descriptors", set(IrqKind::Msix, Trigger, Eventfd, 0, 2), 1),
        ("too many descriptors", set(IrqKind::Msix, Trigger, Eventfd, 0, 1), 2),
        ("descriptors with none", set(IrqKind::Msix, Trigger, None, 0, 1), 1),
        ("descriptors with booleans", set(IrqKind::Msix, Trigger, Bool(&[0]), 0, 1), 1),
        ("descriptors with disarm", set(IrqKind::Msix, Trigger, None, 0, 0), 1),
        ("mask ERR", set(IrqKind::Err, Mask, None, 0, 1), 0),
        ("unmask REQ", set(IrqKind::Req, Unmask, None, 0, 1), 0),
        ("mask by descriptor", set(IrqKind::Intx, Mask, Eventfd, 0, 1), 1),
        ("unmask a vector by descriptor", set(IrqKind::Msix, Unmask, Eventfd, 0, 1), 1),
    ];
    for (name, request, descriptors) in cases {
        assert_eq!(irqs.set(&request, 8, fds(descriptors)), Err(Errno::INVAL), "{name}");
    }
    let (pipe, _) = rustix::pipe::pipe().unwrap();
    let one = set(IrqKind::Msix, Trigger, Eventfd, 0, 1);
    assert_eq!(irqs.set(&one, 8, vec![pipe]), Err(Errno::INVAL), "no eventfd");
    irqs.trigger(IrqKind::Msix, 0);
    assert_eq!(count(&fd), 1);
}

#[test]
fn a_full_counter_does_not_block() {
    let fd = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    rustix::io::write(&fd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    let mut irqs = Irqs::default();
    arm(&mut irqs, IrqKind::Req, 0, &[&fd]).unwrap();
    irqs.trigger(IrqKind::Req, 0);
    assert_eq!(count(&fd), u64::MAX - 1);
}

#[test]
fn a_new_client_finds_the_pin_as_the_device_left_it() {
    let (old, new) = (armed(0), armed(0));
    let mut irqs = Irqs::default();
    arm(&mut irqs, IrqKind::Intx, 0, &[&old]).unwrap();
    irqs.set_intx_level(true);
    irqs.clear();
    arm(&mut irqs, IrqKind::Intx, 0, &[&new]).unwrap();
    assert_eq!((count(&old), count(&new)), (1, 1));
}
