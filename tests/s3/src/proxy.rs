//! A proxy before an S3 server that does to requests what networks and stores do.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// What is done to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection is closed before the server hears of it.
    Reset,
    /// The server carries it out, and its answer does not come back.
    LoseAnswer,
    /// An error of the store, with a code of S3's.
    Answer(u16, &'static str),
    /// Only so many bytes of the answer's body come back.
    CutAnswer(usize),
    /// One byte of what is sent arrives as another.
    Flip,
}

/// A request on its way.
#[derive(Debug, Clone)]
pub struct Request {
    /// Counts from one.
    pub number: usize,
    /// The method, in capitals.
    pub method: String,
    /// Path and query.
    pub uri: String,
    /// Whether it names an object to copy.
    is_copy: bool,
}

impl Request {
    /// What it asks for, in S3's words.
    pub fn what(&self) -> &'static str {
        let has = |part: &str| {
            let query = self.uri.split_once('?').map_or("", |(_, query)| query);
            query
                .split('&')
                .any(|own| own.split('=').next() == Some(part))
        };
        let path = self.uri.split('?').next().unwrap_or_default();
        let is_piece = path.ends_with(".piece");
        let is_note = path.contains("/.tidelock-");
        match self.method.as_str() {
            "PUT" if has("partNumber") && self.is_copy => "UploadPartCopy",
            "POST" if is_piece && has("uploadId") => "CompletePiece",
            "DELETE" if is_piece => "DeletePiece",
            "PUT" if has("partNumber") => "UploadPart",
            "PUT" if is_note => "PutNote",
            "PUT" => "PutObject",
            "POST" if has("uploads") => "CreateMultipartUpload",
            "POST" if has("uploadId") => "CompleteMultipartUpload",
            "DELETE" if has("uploadId") => "AbortMultipartUpload",
            "DELETE" if is_note => "DeleteNote",
            "DELETE" => "DeleteObject",
            "HEAD" => "HeadObject",
            "GET" if has("uploads") => "ListMultipartUploads",
            "GET" if has("uploadId") => "ListParts",
            "GET" if has("list-type") => "ListObjects",
            "GET" => "GetObject",
            _ => "something else",
        }
    }
}

type Decide = Box<dyn FnMut(&Request) -> Option<Fault> + Send>;

/// Listens until it is dropped.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    decide: Arc<Mutex<(usize, Decide)>>,
    ended: Arc<AtomicBool>,
}

impl Proxy {
    /// Stands before `server`, at a free port of loopback, and does nothing yet.
    pub fn before(server: SocketAddr) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), server)
    }

    /// As [`Self::before`], where `listener` is; it asks the server from the calling thread's network.
    pub fn on(listener: TcpListener, server: SocketAddr) -> Self {
        let address = listener.local_addr().unwrap();
        let decide: Arc<Mutex<(usize, Decide)>> = Arc::new(Mutex::new((0, Box::new(|_| None))));
        let ended = Arc::new(AtomicBool::new(false));
        let (deciding, over) = (Arc::clone(&decide), Arc::clone(&ended));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let decide = Arc::clone(&deciding);
                std::thread::spawn(move || {
                    // A connection that breaks is what this is about.
                    let _ = serve(&client.unwrap(), server, &decide);
                });
            }
        });
        Self {
            address,
            decide,
            ended,
        }
    }

    /// From now on `decide` is asked about each request, of which the next is the first.
    pub fn with(&self, decide: impl FnMut(&Request) -> Option<Fault> + Send + 'static) {
        *self.decide.lock().unwrap() = (0, Box::new(decide));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

/// Carries the requests of one connection over, one after the other.
fn serve(
    client: &TcpStream,
    server: SocketAddr,
    decide: &Mutex<(usize, Decide)>,
) -> std::io::Result<()> {
    let mut from_client = BufReader::new(client);
    let mut to_client = client;
    loop {
        let head = head(&mut from_client)?;
        if head.is_empty() {
            return Ok(());
        }
        let mut body = vec![0; length(&head)];
        from_client.read_exact(&mut body)?;
        let fault = {
            let mut deciding = decide.lock().unwrap();
            deciding.0 += 1;
            let mut words = head.split_whitespace().map(str::to_owned);
            let request = Request {
                number: deciding.0,
                method: words.next().unwrap_or_default(),
                uri: words.next().unwrap_or_default(),
                is_copy: head.to_ascii_lowercase().contains("\nx-amz-copy-source:"),
            };
            (deciding.1)(&request)
        };
        match fault {
            Some(Fault::Reset) => return Ok(()),
            Some(Fault::Answer(status, code)) => {
                to_client.write_all(error(status, code).as_bytes())?;
                continue;
            }
            Some(Fault::Flip) => {
                if let Some(byte) = body.last_mut() {
                    *byte ^= 1;
                }
            }
            Some(Fault::LoseAnswer | Fault::CutAnswer(_)) | None => {}
        }
        let (answer, mut content) = forward(server, &head, &body)?;
        match fault {
            Some(Fault::LoseAnswer) => return Ok(()),
            Some(Fault::CutAnswer(bytes)) if bytes < content.len() => {
                content.truncate(bytes);
                to_client.write_all(answer.as_bytes())?;
                to_client.write_all(&content)?;
                return Ok(());
            }
            _ => {
                to_client.write_all(answer.as_bytes())?;
                to_client.write_all(&content)?;
            }
        }
    }
}

/// The answer's head and body.
fn forward(server: SocketAddr, head: &str, body: &[u8]) -> std::io::Result<(String, Vec<u8>)> {
    let mut upstream = TcpStream::connect(server)?;
    upstream.write_all(head.as_bytes())?;
    upstream.write_all(body)?;
    let mut from_server = BufReader::new(&upstream);
    let mut answer = self::head(&mut from_server)?;
    // A server that wants to hear `continue` first has heard it all.
    if answer.starts_with("HTTP/1.1 100") {
        answer = self::head(&mut from_server)?;
    }
    let is_bodiless = head.starts_with("HEAD ") || answer.starts_with("HTTP/1.1 204");
    let mut content = vec![0; if is_bodiless { 0 } else { length(&answer) }];
    from_server.read_exact(&mut content)?;
    Ok((answer, content))
}

/// Everything to the empty line, and that.
fn head(from: &mut impl BufRead) -> std::io::Result<String> {
    let mut head = String::new();
    loop {
        let before = head.len();
        from.read_line(&mut head)?;
        if head.len() == before || &head[before..] == "\r\n" {
            return Ok(head);
        }
    }
}

fn length(head: &str) -> usize {
    let mut lengths = head.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_it = name.eq_ignore_ascii_case("content-length");
        is_it.then(|| value.trim().parse().unwrap())
    });
    lengths.next_back().unwrap_or(0)
}

fn error(status: u16, code: &str) -> String {
    let body = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>As a test wants it.</Message></Error>"
    );
    format!(
        "HTTP/1.1 {status} Error\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
