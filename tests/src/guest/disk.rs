//! What guests with a disk have in common: the modules of Linux's drivers, and the file behind the disk.
#![allow(clippy::unwrap_used, reason = "what fails here is the test")]

use std::fs::{self, File};
use std::path::PathBuf;

use super::{Scene, logs};

/// A scene whose guest has drivers for a virtio disk, and a file system; `None` if guests are to be skipped.
pub fn disk_scene(name: &str) -> Option<Scene> {
    let scene = Scene::new(name)?;
    Some(["virtio_pci", "virtio_blk", "ext4"].into_iter().fold(scene, Scene::module))
}

/// A file beside the configuration of a test, which goes with it.
pub struct Image {
    /// For a look past the device.
    pub file: File,
    path: PathBuf,
}

impl Image {
    /// Zeroes, for the test with this name.
    pub fn new(test: &str, file: &str, bytes: u64) -> Self {
        let directory = logs(test);
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join(file);
        let _ = fs::remove_file(&path);
        let file = File::options().create_new(true).read(true).write(true).open(&path).unwrap();
        file.set_len(bytes).unwrap();
        Self { file, path }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
