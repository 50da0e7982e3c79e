//! Small file systems of their own: volumes that fill up, turn read-only and go bad.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use crate::Story;
use crate::cluster::run;
use crate::wait::until;

/// What the file systems here count space in.
pub const BLOCK_BYTES: u64 = 4096;
const MIB: u64 = 1 << 20;

/// An ext4 file system in a file, mounted through a loop device that goes with the mount.
///
/// # Guarantees
/// Without a journal it takes space for nothing but files and folders, so that a number of free
/// blocks means the same each time.
pub struct LoopMount {
    image: PathBuf,
    at: PathBuf,
}

impl Story {
    /// A claim that is bound to a folder of a file system of `mib` MiB of its own.
    pub async fn small_volume(&self, claim: &str, mib: u64) -> Result<LoopMount> {
        let mount = self.small_file_system(claim, mib)?;
        self.volume_at(claim, &mount.volume()).await?;
        Ok(mount)
    }

    /// As [`Story::small_volume`], of a kind whose space the kubelet of `node` reports.
    pub async fn small_local_volume(&self, claim: &str, mib: u64, node: &str) -> Result<LoopMount> {
        let mount = self.small_file_system(claim, mib)?;
        self.local_volume_at(claim, &mount.volume(), node).await?;
        Ok(mount)
    }

    fn small_file_system(&self, claim: &str, mib: u64) -> Result<LoopMount> {
        let folder = self.volumes_folder()?;
        let mount = LoopMount {
            image: folder.join(format!("{claim}.img")),
            at: folder.join(claim),
        };
        fs::create_dir_all(&mount.at)?;
        File::create(&mount.image)?.set_len(mib * MIB)?;
        let image = mount.image.to_string_lossy();
        let options = ["-q", "-F", "-b", "4096", "-m", "0", "-O", "^has_journal"];
        run("mkfs.ext4", &[&options[..], &[&image]].concat())?;
        mount.mount("rw")?;
        fs::create_dir(mount.ballast())?;
        fs::create_dir(mount.volume())?;
        fs::set_permissions(mount.volume(), fs::Permissions::from_mode(0o777))?;
        Ok(mount)
    }
}

impl LoopMount {
    /// The folder that pods see.
    pub fn volume(&self) -> PathBuf {
        self.at.join("volume")
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }

    /// Blocks that a file could still take.
    pub fn free_blocks(&self) -> Result<u64> {
        Ok(statvfs(&self.at)?.f_bavail)
    }

    /// Takes or gives back space, beside what pods see, until exactly `blocks` are free.
    pub fn leave_free(&self, blocks: u64) -> Result<()> {
        let ballast = self.ballast();
        for entry in fs::read_dir(&ballast)? {
            fs::remove_file(entry?.path())?;
        }
        let mut piece = u64::MAX;
        for number in 0.. {
            let free = self.free_blocks()?;
            ensure!(free >= blocks, "only {free} blocks are free, not {blocks}");
            if free == blocks {
                break;
            }
            // A file in many fragments takes blocks of its own for the list of them, so what does
            // not fit is taken in smaller pieces.
            piece = piece.min(free - blocks);
            let file = File::create(ballast.join(number.to_string()))?;
            match fallocate(&file, FallocateFlags::empty(), 0, piece * BLOCK_BYTES) {
                Err(Errno::NOSPC) if piece > 1 => {
                    file.set_len(0)?;
                    piece /= 2;
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// Lets the kernel meet a fault, upon which it takes no more writes, also not from files that
    /// are open: how disks that fail turn read-only.
    pub fn fail_to_read_only(&self) -> Result<()> {
        let device = run("findmnt", &["-no", "SOURCE", &self.at.to_string_lossy()])?;
        let device = Path::new(device.trim());
        let device = device.file_name().context("no loop device")?;
        let trigger = Path::new("/sys/fs/ext4").join(device);
        fs::write(trigger.join("trigger_fs_error"), "1")?;
        Ok(())
    }

    /// What an administrator does after that: unmount, check, mount.
    pub async fn repair(&self) -> Result<()> {
        self.unmount().await?;
        let image = self.image.to_string_lossy();
        // It tells by its code that it repaired something.
        crate::cluster::try_run("e2fsck", &["-f", "-y", &image])?;
        self.mount("rw")
    }

    /// Makes what lies beyond the first `mib` MiB unreadable: reading it is an input/output error,
    /// as with a disk that has gone bad. The file system takes no more writes.
    pub async fn lose_beyond(&self, mib: u64) -> Result<()> {
        self.unmount().await?;
        self.mount("ro")?;
        let device = run("findmnt", &["-no", "SOURCE", &self.at.to_string_lossy()])?;
        File::options()
            .write(true)
            .open(&self.image)?
            .set_len(mib * MIB)?;
        run("losetup", &["--set-capacity", device.trim()]).map(|_| ())
    }

    /// Waits until the file system has really gone, for a container that is being made may see it a
    /// moment longer than this process: what is mounted meanwhile is the old one in its old state.
    async fn unmount(&self) -> Result<()> {
        let (image, at) = (self.image.to_string_lossy(), self.at.to_string_lossy());
        until("nothing to use the mount", || {
            Ok(run("umount", &[&at]).is_ok())
        })
        .await?;
        until("the loop device to be free", || {
            Ok(run("losetup", &["--associated", &image])?.trim().is_empty())
        })
        .await
    }

    fn mount(&self, mode: &str) -> Result<()> {
        let options = format!("loop,errors=remount-ro,{mode}");
        let (image, at) = (self.image.to_string_lossy(), self.at.to_string_lossy());
        run("mount", &["-o", &options, &image, &at]).map(|_| ())
    }
}

/// Unmounts what is mounted below `folder`; the loop devices go with the last pod that sees them.
pub fn unmount_below(folder: &Path) {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(1));
    let below: Vec<&Path> = points
        .map(Path::new)
        .filter(|point| point.starts_with(folder))
        .collect();
    for point in below.into_iter().rev() {
        // Best effort: what stays goes with the cluster.
        let _ = run("umount", &["--lazy", &point.to_string_lossy()]);
    }
}
