//! What a stock kernel makes of the device by itself: enumeration, the mailbox, interrupts, an IOMMU.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use tests::guest::{DEVICE, SYSFS, Scene, compare_lspci};

#[test]
fn the_kernel_finds_the_mailbox_and_does_not_complain() {
    let Some(scene) = Scene::new("kernel_view") else { return };
    let mut stage = scene.start();
    let features = stage.check(&format!("ls {SYSFS}/doe_features"));
    let features: Vec<_> = features.split_whitespace().collect();
    assert_eq!(features, ["0001:01", "0001:02", "doe_discovery"]);
    compare_lspci(&mut stage, "");
    stage.finish();
}

#[test]
fn two_functions_are_one_device_with_one_mailbox() {
    let Some(scene) = Scene::new("two_functions") else { return };
    let mut stage = scene.functions(2).start();
    let functions = stage.check("lspci -n -s 01: 2>/dev/null | cut -d' ' -f1,3");
    assert_eq!(functions, "01:00.0 1234:7d15\n01:00.1 1234:7d15\n");
    stage.check(&format!("[ -d {SYSFS}/doe_features ]"));
    stage.check("[ ! -e /sys/bus/pci/devices/0000:01:00.1/doe_features ]");

    // Each function is a TDI of its own: locking the second leaves the first as it was.
    let first = stage.bar(DEVICE, 2);
    let second = stage.bar("0000:01:00.1", 2);
    stage.store(first, 0x1111_1111);
    stage.store(second, 0x2222_2222);
    stage.tdispctl("lock --function-id 0x0101");
    assert_eq!(stage.load(first), 0x1111_1111);
    assert_eq!(stage.load(second), u32::MAX);
    stage.tdispctl("stop");
    assert_eq!(stage.load(second), 0, "STOP scrubs private memory");
    assert_eq!(stage.load(first), 0x1111_1111);
    stage.walk();
    stage.finish();
}

#[test]
fn the_walk_works_behind_an_iommu() {
    let Some(scene) = Scene::new("iommu") else { return };
    let mut stage = scene.iommu().start();
    assert_eq!(stage.check(&format!("cat {SYSFS}/iommu_group/type")).trim(), "DMA");

    // No driver has mapped anything for the device: its DMA meets no memory, and says so (REGISTERS.md, code 6).
    let registers = stage.bar(DEVICE, 0);
    let (destination, length, command, start, status) =
        (registers + 0x108, registers + 0x110, registers + 0x120, registers + 0x124, registers + 0x128);
    stage.store(destination, 0x10_0000);
    stage.store(length, 4096);
    stage.store(command, 2);
    stage.store(start, 1);
    assert_eq!(stage.load(status), 6 << 8 | 0b110);

    // With bus addresses that are physical ones the whole walk works; the change remaps all memory under the device.
    stage.check(&format!("echo identity > {SYSFS}/iommu_group/type"));
    stage.walk();
    stage.finish();
}

#[test]
fn without_msi_x_an_interrupt_reaches_user_space_through_the_pin() {
    let Some(scene) = Scene::new("intx") else { return };
    let mut stage = scene.config("[[function]]\nmsix = false\n").module("uio_pci_generic").start();
    let listing = stage.check(&format!("lspci -n -vv -s {DEVICE} 2>/dev/null"));
    assert!(listing.contains("Interrupt: pin A") && !listing.contains("MSI-X"), "{listing}");
    let registers = stage.bar(DEVICE, 0);
    let (trigger, status) = (registers + 0x200, registers + 0x204);
    stage.check("echo 1234 7d15 > /sys/bus/pci/drivers/uio_pci_generic/new_id");
    stage.check("[ -c /dev/uio0 ]");
    for count in 1..=3 {
        // The driver masks the pin when it fires; whoever has quieted the device opens it again.
        let script = format!(
            "setpci -s {DEVICE} COMMAND=0:400; (sleep 1; devmem {trigger:#x} 32 0) & \
             timeout 20 dd if=/dev/uio0 bs=4 count=1 2>/dev/null | hexdump -e '1/4 \"%d\"'"
        );
        assert_eq!(stage.check(&script).trim(), count.to_string());
        assert_eq!(stage.load(status), 1);
        stage.store(status, 1);
        assert_eq!(stage.load(status), 0);
    }
    stage.finish();
}
