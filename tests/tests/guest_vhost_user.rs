//! A stock guest on the disk, through QEMU's `vhost-user-blk-pci`: the client nobody here wrote.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use qemu_config::{Daemon, Guest, Initramfs, Machine};
use tests::guest::{Prepared, logs, prepare};

const MIB: u64 = 1 << 20;

/// The disk's process, started again and again on the same socket.
struct Disk<'a> {
    prepared: &'a Prepared,
    directory: PathBuf,
    socket: PathBuf,
    starts: u32,
}

impl Disk<'_> {
    fn start(&mut self) -> Daemon {
        self.starts += 1;
        let log = self.directory.join(format!("tdispd-{}.log", self.starts));
        let config = self.directory.join("disk.toml");
        let arguments = ["-v".as_ref(), "--config".as_ref(), config.as_os_str()];
        Daemon::disk(&self.prepared.programs.tdispd, &self.socket, arguments, &log).unwrap()
    }

    /// As a crash would end it.
    fn kill(&self, daemon: Daemon) {
        drop(daemon);
        fs::remove_file(&self.socket).unwrap();
    }
}

fn machine(socket: &Path) -> Machine {
    let chardev = format!("socket,id=disk,path={},reconnect-ms=100", socket.display());
    let device = "vhost-user-blk-pci,chardev=disk,num-queues=2,config-wce=on";
    let arguments = ["-smp", "2", "-chardev", &chardev, "-device", device];
    Machine { qemu_arguments: arguments.map(Into::into).to_vec(), ..Machine::default() }
}

#[test]
fn a_stock_guest_uses_the_disk_and_loses_nothing_when_its_server_is_killed() {
    let name = "vhost_user";
    let Some(prepared) = prepare(name) else { return };
    let directory = logs(name);
    fs::create_dir_all(&directory).unwrap();
    let sockets = tempfile::Builder::new().prefix("tdispd-test-").tempdir().unwrap();
    let image = directory.join("disk.img");
    let _ = fs::remove_file(&image);
    let file = File::create_new(&image).unwrap();
    file.set_len(48 * MIB).unwrap();
    // A pattern that the guest finds, near the end.
    file.write_all_at(&[0xC3; 4096], 40 * MIB).unwrap();
    let config = "[disk]\npath = \"disk.img\"\nqueues = 2\nserial = \"stock-guest\"\nblock_size = 512\n";
    fs::write(directory.join("disk.toml"), config).unwrap();
    let mut disk = Disk { prepared, directory, socket: sockets.path().join("disk"), starts: 0 };
    let daemon = disk.start();

    let initramfs =
        Initramfs::new(&prepared.testbed).module("virtio_pci").module("virtio_blk").module("ext4");
    let machine = machine(&disk.socket);
    let mut guest =
        Guest::start(&prepared.testbed, &initramfs.build().unwrap(), &machine, &disk.directory).unwrap();

    // What the guest's own driver makes of configuration space.
    let queue = "/sys/block/vda/queue";
    let facts = guest
        .check(&format!(
            "cat /sys/block/vda/size /sys/block/vda/serial; echo; cat {queue}/logical_block_size \
             {queue}/physical_block_size {queue}/write_cache {queue}/discard_granularity /sys/block/vda/ro; \
             ls /sys/block/vda/mq | wc -l"
        ))
        .unwrap();
    let facts: Vec<&str> = facts.split_whitespace().collect();
    assert_eq!(facts, ["98304", "stock-guest", "512", "4096", "write", "back", "4096", "0", "2"]);
    let pattern = "dd if=/dev/vda bs=4096 skip=10240 count=1 2>/dev/null | sha256sum";
    let of_pattern = guest.check("printf '\\303%.0s' $(seq 4096) | sha256sum").unwrap();
    assert_eq!(guest.check(pattern).unwrap(), of_pattern);

    // A file system, and a checksum of what is in it past the page cache.
    guest.check("mke2fs /dev/vda 32768 >/dev/null && mkdir -p /mnt && mount -t ext4 /dev/vda /mnt").unwrap();
    guest.check("dd if=/dev/urandom of=/mnt/a bs=64k count=64 2>/dev/null && sync").unwrap();
    let sum = guest.check("sha256sum < /mnt/a").unwrap();
    let read = "echo 3 > /proc/sys/vm/drop_caches; sha256sum < /mnt/a";
    assert_eq!(guest.check(read).unwrap(), sum);

    // Killed in the middle of writes; what was in flight is carried out by the next one, and the guest sees no error.
    let work = "(while [ ! -e /run/stop ]; do for i in 1 2 3 4 5; do dd if=/mnt/a of=/mnt/b$i bs=64k conv=fsync; done; done) \
                >/run/dd 2>&1 & echo $! >/run/pid";
    guest.check(work).unwrap();
    guest.check("while [ ! -e /mnt/b2 ]; do sleep 0.05; done").unwrap();
    disk.kill(daemon);
    std::thread::sleep(Duration::from_millis(300));
    let daemon = disk.start();
    guest
        .check("touch /run/stop; while kill -0 $(cat /run/pid) 2>/dev/null; do sleep 0.1; done; ! grep -i error /run/dd")
        .unwrap();
    let sums = guest
        .check("echo 3 > /proc/sys/vm/drop_caches; for i in 1 2 3 4 5; do sha256sum < /mnt/b$i; done")
        .unwrap();
    assert_eq!(sums, sum.repeat(5));
    assert_eq!(guest.check(read).unwrap(), sum);

    // Space that is given back leaves the host's file.
    let before = fs::metadata(&image).unwrap().blocks();
    guest.check("rm /mnt/b*; sync; fstrim /mnt; umount /mnt").unwrap();
    let after = fs::metadata(&image).unwrap().blocks();
    assert!(after + 16 * 1024 <= before, "{before} blocks of 512 bytes, then {after}");
    guest.check("blkdiscard -o 41943040 -l 4096 /dev/vda").unwrap();
    let mut bytes = [1; 4096];
    file.read_exact_at(&mut bytes, 40 * MIB).unwrap();
    assert_eq!(bytes, [0; 4096]);

    // The disk grows under the guest.
    file.set_len(64 * MIB).unwrap();
    guest.check("for i in $(seq 100); do [ $(cat /sys/block/vda/size) = 131072 ] && exit 0; sleep 0.1; done; exit 1").unwrap();
    guest.check("echo end | dd of=/dev/vda bs=512 seek=131071 conv=sync,fsync 2>/dev/null").unwrap();
    file.read_exact_at(&mut bytes[..4], 64 * MIB - 512).unwrap();
    assert_eq!(&bytes[..4], b"end\n");

    // What the guest's kernel thought of all this.
    let complaints =
        guest.check("dmesg | grep -iE 'vda.*error|I/O error|BUG:|WARNING:|Call Trace' || true").unwrap();
    assert_eq!(complaints, "");
    guest.quit().unwrap();
    assert!(daemon.stop().unwrap().success());
    drop(fs::remove_file(&image));
}

/// QEMU's block layer over libblkio: another client that nobody here wrote, and without a guest.
#[test]
fn libblkio_uses_the_disk() {
    let name = "libblkio";
    let Some(prepared) = prepare(name) else { return };
    let directory = logs(name);
    fs::create_dir_all(&directory).unwrap();
    let sockets = tempfile::Builder::new().prefix("tdispd-test-").tempdir().unwrap();
    // Its memory is a memfd that nobody can seal.
    let config = "[disk]\nsize = \"8M\"\nqueues = 2\nclient_memory = \"any\"\n";
    fs::write(directory.join("disk.toml"), config).unwrap();
    let mut disk = Disk { prepared, directory, socket: sockets.path().join("disk"), starts: 0 };
    let daemon = disk.start();
    let tool = |name: &str, arguments: &[&str]| {
        let options = format!("driver=virtio-blk-vhost-user,cache.direct=on,path={}", disk.socket.display());
        let mut command = Command::new(prepared.testbed.tools.join(name));
        let output = command.args(arguments).args(["--image-opts", &options]).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    for (commands, good) in [
        (&["length", "write -P 0x5a 4096 1M", "flush", "read -P 0x5a 4096 1M"][..], true),
        // Another connection finds what the first one wrote.
        (
            &["read -P 0x5a 4096 1M", "write -z 8192 64k", "read -P 0 8192 64k", "read -P 0x5a 73728 4096"],
            true,
        ),
        (&["discard 0 2M", "flush", "read -P 0 0 2M"], true),
        (&["read -P 1 0 512"], false),
        (&["read 8M 512"], false),
    ] {
        let arguments: Vec<&str> = commands.iter().flat_map(|command| ["-c", command]).collect();
        let (done, text) = tool("qemu-io", &arguments);
        let right = done && !text.contains("failed");
        assert_eq!(right, good, "{commands:?}: {text}");
    }
    for write in [&["-w"][..], &[]] {
        let arguments = [&["bench", "-t", "none", "-c", "5000", "-d", "64", "-s", "4096"], write].concat();
        let (done, text) = tool("qemu-img", &arguments);
        assert!(done && text.contains("Run completed"), "{text}");
    }
    disk.kill(daemon);
}
