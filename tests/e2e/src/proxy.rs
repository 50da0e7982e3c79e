//! A way to the API server that sees every write of one operator, and can end the operator just
//! before or just after one of them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderMap, TRANSFER_ENCODING};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use kube::Client;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;

use crate::cluster::OPERATOR_NAMESPACE;
use crate::effect::Effect;

/// Far more than any object has.
const LARGEST_BODY: usize = 8 << 20;

/// On which side of a write the operator dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The API server never sees the write.
    Before,
    /// The API server has answered, and the operator never reads the answer.
    After,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Before => "before",
            Self::After => "after",
        })
    }
}

/// When the operator dies: at the first write that is `effect`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// At which write.
    pub effect: Effect,
    /// On which side of it.
    pub side: Side,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "just {} {}", self.side, self.effect)
    }
}

/// A write and how the API server answered it.
#[derive(Debug, Clone)]
pub struct Write {
    /// Which operator sent it.
    pub operator: String,
    /// What it changes.
    pub effect: Effect,
    /// HTTP status of the answer.
    pub code: u16,
}

/// What several operators that take turns have written.
#[derive(Default)]
pub struct Ledger(Mutex<(Vec<Write>, Option<Instant>)>);

impl Ledger {
    fn note(&self, write: Write) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.0.push(write);
        inner.1 = Some(Instant::now());
    }

    /// All writes that were answered, in the order of the answers.
    pub fn writes(&self) -> Vec<Write> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.0.clone()
    }

    /// How often each object was made, by the effect that made it; Events aside, of which each
    /// has a name of its own.
    pub fn made(&self) -> BTreeMap<String, usize> {
        let mut made = BTreeMap::new();
        for write in self.writes() {
            let effect = &write.effect;
            if write.code == 201 && effect.verb == "create" && effect.resource != "events" {
                *made.entry(effect.to_string()).or_default() += 1;
            }
        }
        made
    }

    /// How long ago the last write was answered; none where there was no write.
    pub fn quiet_for(&self) -> Option<Duration> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.1.map(|at| at.elapsed())
    }
}

impl Write {
    /// Whether it is about the lease of leader election: what also one writes that does not lead.
    pub fn is_about_lease(&self) -> bool {
        self.effect.resource == "leases"
    }
}

/// A proxy in front of the API server, for one operator process.
pub struct Proxy {
    /// Where it listens; plain HTTP.
    pub address: SocketAddr,
    gate: Arc<Gate>,
    serving: tokio::task::JoinHandle<()>,
}

/// What stands between the operator and the API server.
struct Gate {
    operator: String,
    client: Client,
    ledger: Arc<Ledger>,
    fault: Option<Fault>,
    victim: Mutex<Option<Pid>>,
    struck: watch::Sender<bool>,
    /// Whether requests get stuck on their way.
    cut: watch::Sender<bool>,
}

impl Proxy {
    /// Listens on loopback, writes into `ledger` what `operator` writes, and strikes as `fault` says.
    pub async fn start(
        client: Client,
        operator: &str,
        ledger: Arc<Ledger>,
        fault: Option<Fault>,
    ) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let gate = Arc::new(Gate {
            operator: operator.to_owned(),
            client,
            ledger,
            fault,
            victim: Mutex::new(None),
            struck: watch::Sender::new(false),
            cut: watch::Sender::new(false),
        });
        let router = axum::Router::new().fallback(pass).with_state(gate.clone());
        let serving = tokio::spawn(async move {
            // It serves until it is aborted.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self {
            address,
            gate,
            serving,
        })
    }

    /// Names the process that dies.
    pub fn aim_at(&self, process: Pid) {
        let mut victim = self.gate.lock_victim();
        *victim = Some(process);
    }

    /// Lets requests get stuck from now on, or lets them and those that are stuck through again.
    pub fn cut(&self, cut: bool) {
        self.gate.cut.send_replace(cut);
    }

    /// Ends when the fault has struck; never without one.
    pub async fn struck(&self) {
        let mut struck = self.gate.struck.subscribe();
        // The sender lives as long as this proxy.
        let _ = struck.wait_for(|struck| *struck).await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Gate {
    fn lock_victim(&self) -> std::sync::MutexGuard<'_, Option<Pid>> {
        self.victim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_dead(&self) -> bool {
        *self.struck.borrow()
    }

    /// Kills the operator; true for the first who asks.
    fn strike(&self) -> bool {
        let first = !self.struck.send_replace(true);
        if first && let Some(process) = *self.lock_victim() {
            // It may have ended by itself, which its supervisor sees.
            let _ = kill_process(process, Signal::KILL);
        }
        first
    }

    fn is_due(&self, effect: &Effect, side: Side) -> bool {
        let fault = self.fault.as_ref();
        fault.is_some_and(|fault| fault.side == side && fault.effect == *effect)
    }

    async fn forward(
        &self,
        method: Method,
        target: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response> {
        let mut request = axum::http::Request::builder().method(method).uri(target);
        for (name, value) in headers {
            if ![HOST, CONNECTION, TRANSFER_ENCODING, AUTHORIZATION].contains(name) {
                request = request.header(name, value);
            }
        }
        for (name, value) in identity() {
            request = request.header(name, value);
        }
        let answer = self.client.send(request.body(body.into())?).await?;
        let (mut head, body) = answer.into_parts();
        head.headers.remove(CONNECTION);
        head.headers.remove(TRANSFER_ENCODING);
        Ok(Response::from_parts(head, Body::new(body)))
    }

    /// Passes a write on, unless the operator is to die before it; after it, the answer is lost.
    async fn write(
        &self,
        effect: Effect,
        method: Method,
        target: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response> {
        if self.is_due(&effect, Side::Before) {
            self.strike();
            return Ok(gone());
        }
        let last = self.is_due(&effect, Side::After);
        let answer = self.forward(method, target, headers, body).await?;
        let (head, body) = answer.into_parts();
        let body = to_bytes(body, LARGEST_BODY).await?;
        let code = head.status.as_u16();
        let operator = self.operator.clone();
        self.ledger.note(Write {
            operator,
            effect,
            code,
        });
        if last {
            self.strike();
            return Ok(gone());
        }
        Ok(Response::from_parts(head, Body::from(body)))
    }
}

/// Who the operator is to the API server: the account of its Deployment, so that its role is in
/// force here too.
fn identity() -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let groups = [
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{OPERATOR_NAMESPACE}"),
        "system:authenticated".to_owned(),
    ];
    let user = format!("system:serviceaccount:{OPERATOR_NAMESPACE}:tidelock");
    let pairs = groups
        .into_iter()
        .map(|group| ("impersonate-group", group))
        .chain([("impersonate-user", user)]);
    pairs.filter_map(|(name, value)| {
        Some((
            HeaderName::from_static(name),
            HeaderValue::try_from(value).ok()?,
        ))
    })
}

async fn pass(State(gate): State<Arc<Gate>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let target = head
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str())
        .to_owned();
    let passed = async {
        let body = to_bytes(body, LARGEST_BODY).await.context("read a body")?;
        // The sender lives as long as the gate.
        let _ = gate.cut.subscribe().wait_for(|cut| !*cut).await;
        // What reaches this side after the strike was written by a process that is no more.
        if gate.is_dead() {
            return Ok(gone());
        }
        match Effect::of(head.method.as_str(), &target, &body) {
            Some(effect) => {
                // A task of its own: what is on its way when the operator dies still arrives, and
                // is noted.
                let written = tokio::spawn(async move {
                    gate.write(effect, head.method, &target, &head.headers, body)
                        .await
                });
                written.await?
            }
            None => {
                gate.forward(head.method, &target, &head.headers, body)
                    .await
            }
        }
    };
    passed.await.unwrap_or_else(|error: anyhow::Error| {
        (StatusCode::BAD_GATEWAY, format!("{error:#}\n")).into_response()
    })
}

/// To an operator that is dead.
fn gone() -> Response {
    StatusCode::GONE.into_response()
}
