//! Reaches the API server from outside its network namespace.

use std::fs::{self, File};
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::AsFd;

use super::daemon::Daemon;
use super::layout::{API_PORT, Cluster};
use super::pki::text;

/// What the forwarder needs to know.
#[derive(clap::Args)]
pub struct Arguments {
    /// The network namespace to connect in.
    #[arg(long)]
    network: PathBuf,
    /// Address and port to connect to.
    #[arg(long)]
    to: String,
    /// Where to write the port that it listens on.
    #[arg(long)]
    port_file: PathBuf,
}

impl Cluster {
    /// The file that holds the loopback port.
    pub fn port_file(&self) -> PathBuf {
        self.dir.join("port")
    }

    /// Starts the forwarder on a free loopback port.
    pub fn start_forwarder(&self) -> Result<()> {
        let first = self.node(1);
        self.start(&Daemon {
            name: "forwarder".to_owned(),
            network: None,
            argv: vec![
                text(&std::env::current_exe()?),
                "forward".to_owned(),
                format!("--network={}", first.network_file().display()),
                format!("--to={}:{API_PORT}", first.address()),
                format!("--port-file={}", self.port_file().display()),
            ],
        })
    }

    /// The forwarder's port, once it listens.
    pub fn port(&self) -> Option<u16> {
        fs::read_to_string(self.port_file()).ok()?.parse().ok()
    }
}

/// Accepts connections outside and makes the matching ones inside, for ever.
pub fn run(arguments: &Arguments) -> Result<()> {
    // A socket stays in the namespace it was made in: listen first, then move.
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot listen on loopback")?;
    let port = listener.local_addr()?.port();
    let network = File::open(&arguments.network)
        .with_context(|| format!("cannot open {}", arguments.network.display()))?;
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
        .context("cannot enter the network namespace")?;
    publish(&arguments.port_file, port)?;
    for outside in listener.incoming() {
        let outside = outside?;
        let to = arguments.to.clone();
        thread::spawn(move || {
            if let Err(error) = serve(outside, &to) {
                eprintln!("connection to {to}: {error}");
            }
        });
    }
    Ok(())
}

fn publish(file: &Path, port: u16) -> Result<()> {
    let partial = file.with_extension("partial");
    fs::write(&partial, port.to_string())?;
    fs::rename(&partial, file).with_context(|| format!("cannot write {}", file.display()))
}

fn serve(outside: TcpStream, to: &str) -> io::Result<()> {
    let inside = TcpStream::connect(to)?;
    inside.set_nodelay(true)?;
    outside.set_nodelay(true)?;
    let (from, into) = (outside.try_clone()?, inside.try_clone()?);
    let upward = thread::spawn(move || copy(from, into));
    copy(inside, outside)?;
    upward.join().unwrap_or(Ok(()))
}

/// Copies one direction, and passes its end on.
fn copy(mut from: TcpStream, mut into: TcpStream) -> io::Result<()> {
    let result = io::copy(&mut from, &mut into);
    let _ = into.shutdown(Shutdown::Write);
    result.map(|_| ())
}
