//! A real S3 server on this host's loopback.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidelock_storage::{BucketConfig, Composition, Credentials, Encryption};

/// Names the server's program; `make check` builds it and sets this.
pub const PROGRAM: &str = "TIDELOCK_S3_SERVER";
/// The bucket that is there.
pub const BUCKET: &str = "backups";
/// Below the root: the buckets, and the older versions of their objects.
const BUCKETS: &str = "buckets";
const VERSIONS: &str = "versions";
const KEY_ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "secret-of-the-test";

/// The server and what it keeps.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// Holds the buckets as folders.
    root: TempDir,
    /// Its keys, as a Secret is mounted.
    pub secret: TempDir,
}

impl Server {
    /// Starts one of its own, whose buckets are in the system's folder for what is temporary.
    pub fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap())
    }

    /// Starts one whose buckets are in `root`.
    pub fn start_in(root: TempDir) -> Self {
        std::fs::create_dir_all(root.path().join(BUCKETS).join(BUCKET)).unwrap();
        Self::serve(root, &[])
    }

    /// Starts one whose bucket locks objects.
    pub fn start_locking() -> Self {
        let root = tempfile::tempdir().unwrap();
        let versions = root.path().join(VERSIONS);
        for folder in [&root.path().join(BUCKETS), &versions] {
            std::fs::create_dir(folder).unwrap();
        }
        let server = Self::serve(root, &["--versioning-dir", versions.to_str().unwrap()]);
        let url = format!("http://{}/{BUCKET}", server.address);
        let user = format!("{KEY_ID}:{SECRET}");
        let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let made = Command::new("curl")
            .args(["--silent", "--fail", "--request", "PUT", "--user", &user])
            .args(["--aws-sigv4", "aws:amz:us-east-1:s3"])
            .args(["--header", &format!("x-amz-content-sha256: {nothing}")])
            .args(["--header", "x-amz-bucket-object-lock-enabled: true", &url])
            .status();
        assert!(made.unwrap().success(), "the bucket cannot be made");
        server
    }

    fn serve(root: TempDir, options: &[&str]) -> Self {
        let program = std::env::var(PROGRAM).unwrap_or_else(|_| {
            panic!("{PROGRAM} names no S3 server: `make check` builds it and runs these tests")
        });
        let secret = tempfile::tempdir().unwrap();
        write_secret(secret.path(), KEY_ID, SECRET);
        let address = free_address();
        let child = Command::new(program)
            .args(["--port", &address.to_string(), "posix"])
            .args(options)
            .arg(root.path().join(BUCKETS))
            .env("ROOT_ACCESS_KEY", KEY_ID)
            .env("ROOT_SECRET_KEY", SECRET)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "the S3 server does not listen");
            sleep(Duration::from_millis(20));
        }
        Self {
            child,
            address,
            root,
            secret,
        }
    }

    /// The folder that holds the objects of its bucket.
    pub fn bucket(&self) -> PathBuf {
        self.root.path().join(BUCKETS).join(BUCKET)
    }

    /// The files of all objects and of their older versions, below the root of the server.
    pub fn files(&self) -> Vec<String> {
        let (mut folders, mut found) = (vec![self.root.path().to_owned()], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(self.root.path()).unwrap();
                    found.push(name.to_string_lossy().into_owned());
                }
            }
        }
        found
    }

    /// Id and secret of its key.
    pub fn keys(&self) -> (&'static str, &'static str) {
        (KEY_ID, SECRET)
    }

    /// How a part of the server's bucket is reached.
    pub fn config(&self, prefix: &str) -> BucketConfig {
        BucketConfig {
            bucket: BUCKET.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: Some(format!("http://{}", self.address)),
            region: "us-east-1".to_owned(),
            path_style: true,
            credentials: Credentials::of(self.secret.path()),
            ca_bundle: None,
            storage_class: None,
            encryption: Encryption::Unset,
            locks: false,
            composition: Composition::default(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server of the tests that run now; it ends with the last of them.
pub fn server() -> Arc<Server> {
    static SERVER: Mutex<Weak<Server>> = Mutex::new(Weak::new());
    let mut known = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    known.upgrade().unwrap_or_else(|| {
        let server = Arc::new(Server::start());
        *known = Arc::downgrade(&server);
        server
    })
}

/// A part of the bucket that no other test uses.
pub fn fresh_prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("part-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Writes the files of a mounted Secret.
pub fn write_secret(folder: &Path, key_id: &str, secret: &str) {
    std::fs::write(folder.join(Credentials::ACCESS_KEY_ID), key_id).unwrap();
    std::fs::write(folder.join(Credentials::SECRET_ACCESS_KEY), secret).unwrap();
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}
