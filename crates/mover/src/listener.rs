//! Telling how far a run is to whoever asks.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidelock_protocol::PROGRESS_PORT;

use crate::progress::Progress;

/// How long one who asks may take over it; others wait meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause after a connection that could not be taken, lest a lack of file descriptors spins.
const AFTER_ERROR: Duration = Duration::from_secs(1);
/// As much of a question as is read; whatever it is, the answer is the same.
const MAX_QUESTION_BYTES: usize = 1024;

/// Answers HTTP requests on [`PROGRESS_PORT`] from a thread of its own until the process ends.
///
/// # Errors
/// None: a run whose progress nobody hears is a run all the same; a warning says so.
pub fn tell_progress(progress: &Arc<Progress>, run_uid: &str) {
    let listener = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, PROGRESS_PORT)))
        .or_else(|_| TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, PROGRESS_PORT))));
    let (progress, run_uid) = (Arc::clone(progress), run_uid.to_owned());
    let started = listener.and_then(|listener| {
        std::thread::Builder::new()
            .name("progress".to_owned())
            .spawn(move || serve(&listener, &progress, &run_uid))
    });
    if let Err(error) = started {
        tracing::warn!(%error, port = PROGRESS_PORT, "nobody will hear how far this run is");
    }
}

fn serve(listener: &TcpListener, progress: &Progress, run_uid: &str) {
    for connection in listener.incoming() {
        match connection {
            Ok(connection) => {
                // Who goes away without an answer asks again, or does not need it.
                let _ = answer(connection, progress, run_uid);
            }
            Err(error) => {
                tracing::debug!(%error, "a question for the progress could not be taken");
                std::thread::sleep(AFTER_ERROR);
            }
        }
    }
}

fn answer(mut connection: TcpStream, progress: &Progress, run_uid: &str) -> io::Result<()> {
    let asked = Instant::now();
    connection.set_write_timeout(Some(PATIENCE))?;
    let mut question = [0; MAX_QUESTION_BYTES];
    let mut length = 0;
    while length < question.len() && !question[..length].windows(4).any(|end| end == b"\r\n\r\n") {
        // The system takes no time-out of nothing.
        let left = PATIENCE.saturating_sub(asked.elapsed());
        connection.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match connection.read(&mut question[length..])? {
            0 => break,
            read => length += read,
        }
    }
    let report = serde_json::to_string(&progress.report(run_uid))?;
    write!(
        connection,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{report}",
        report.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_hears_how_far_the_run_is() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let progress = Arc::new(Progress::default());
        std::thread::spawn(move || serve(&listener, &progress, "u-1"));
        // Neither one who goes at once nor one who says nothing keeps the next one from an answer.
        drop(TcpStream::connect(address).unwrap());
        let _silent = TcpStream::connect(address).unwrap();
        let mut asking = TcpStream::connect(address).unwrap();
        asking.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        asking.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let report = tidelock_protocol::ProgressReport::parse(body.as_bytes(), "u-1").unwrap();
        assert_eq!((report.bytes, report.files), (0, 0));
    }
}
