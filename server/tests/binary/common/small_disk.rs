//! A small disk that a test can fill: a real file system, mounted where only the processes of this test see it. It goes
//! with them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Of the last writes that fill the disk.
const BLOCK_BYTES: usize = 4096;

pub struct SmallDisk {
    /// Its mount namespace is the disk's.
    holder: Child,
    is_root: bool,
    mount_point: PathBuf,
    _folder: tempfile::TempDir,
}

impl SmallDisk {
    /// ext4 on a loop device for root; a tmpfs for others, who may mount nothing else.
    pub fn new(mebibytes: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mount_point = folder.path().join("disk");
        fs::create_dir(&mount_point).expect("a mount point");
        // SAFETY: only asks who this process is.
        let is_root = unsafe { libc::geteuid() } == 0;
        let (image, at) = (folder.path().join("image"), mount_point.display());
        let mount = if is_root {
            let image = image.display();
            format!("truncate -s {mebibytes}M {image} && mkfs.ext4 -q -m 0 {image} && mount -o loop {image} {at}")
        } else {
            format!("mount -t tmpfs -o size={mebibytes}m none {at}")
        };
        let mut command = Command::new("unshare");
        command.args(if is_root { &["--mount"][..] } else { &["--map-root-user", "--mount"] });
        command.args([
            "sh",
            "-c",
            &format!("PATH=$PATH:/sbin:/usr/sbin; {mount} && echo ready && exec sleep infinity"),
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        // SAFETY: one system call between fork and exec. A test that is killed leaves nothing behind.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut holder = command.spawn().expect("unshare");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().expect("a pipe")).read_line(&mut line).expect("its first line");
        assert_eq!(line, "ready\n", "a small file system could not be mounted");
        Self { holder, is_root, mount_point, _folder: folder }
    }

    /// As processes on the disk see it.
    pub fn path(&self) -> &Path {
        &self.mount_point
    }

    /// The same for this process.
    pub fn seen_from_outside(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(path.strip_prefix("/").expect("an absolute path"))
    }

    /// The command, run where the disk is.
    pub fn command(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.arg("--target").arg(self.holder.id().to_string()).arg("--mount");
        if !self.is_root {
            inside.args(["--user", "--preserve-credentials"]);
        }
        inside.arg("--").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside
    }

    /// Takes all the space that is left, to the last block: also what a process that has just ended gives back late.
    pub fn fill(&self) {
        let mut quiet = 0;
        while quiet < 5 {
            quiet = if self.fill_once() { 0 } else { quiet + 1 };
            std::thread::sleep(Duration::from_millis(40));
        }
    }

    /// Whether there was any.
    fn fill_once(&self) -> bool {
        let mut is_any = false;
        let mut filler = File::options().create(true).append(true).open(self.filler()).expect("a file on the disk");
        for bytes in [1 << 20, BLOCK_BYTES] {
            let block = vec![0xa5; bytes];
            while filler.write_all(&block).and_then(|()| filler.sync_data()).is_ok() {
                is_any = true;
            }
        }
        is_any
    }

    /// Gives it back.
    pub fn free(&self) {
        fs::remove_file(self.filler()).expect("the filler");
    }

    fn filler(&self) -> PathBuf {
        self.seen_from_outside(&self.mount_point).join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
