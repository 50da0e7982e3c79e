//! The election over HTTP: a server that keeps one Lease as the API server does, and operators that
//! want it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Config};
use serde_json::{Value, json};
use tidelock_core::lease::{Lost, Timing};
use tidelock_operator::health::Health;
use tidelock_operator::leader::fence::{self, Fence};
use tidelock_operator::leader::{Candidate, Election, Ended, Keeper, Leading};

/// What the server keeps, and what it was asked for.
#[derive(Default)]
struct Kept {
    lease: Option<Value>,
    version: u64,
    /// Answers nothing any more.
    silent: bool,
    /// How long it takes to answer.
    slow: Duration,
    /// Writes of anything but the lease.
    writes: Vec<String>,
}

#[derive(Clone, Default)]
struct Server(Arc<Mutex<Kept>>);

impl Server {
    async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }

    fn holder(&self) -> Option<String> {
        let kept = self.0.lock().unwrap();
        let holder = kept.lease.as_ref()?["spec"]["holderIdentity"].as_str();
        holder.map(str::to_owned)
    }

    fn transitions(&self) -> i64 {
        let kept = self.0.lock().unwrap();
        kept.lease.as_ref().unwrap()["spec"]["leaseTransitions"]
            .as_i64()
            .unwrap()
    }
}

async fn answer(State(server): State<Server>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let slow = server.0.lock().unwrap().slow;
    tokio::time::sleep(slow).await;
    if server.0.lock().unwrap().silent {
        std::future::pending::<()>().await;
    }
    let mut kept = server.0.lock().unwrap();
    if !head.uri.path().contains("/leases") {
        if head.method != Method::GET {
            kept.writes.push(format!("{} {}", head.method, head.uri));
        }
        return (StatusCode::OK, "{}").into_response();
    }
    kept.about_lease(&head.method, &body)
}

impl Kept {
    fn about_lease(&mut self, method: &Method, body: &Bytes) -> Response {
        let current = self
            .lease
            .as_ref()
            .map(|l| l["metadata"]["resourceVersion"].clone());
        if method == Method::GET {
            return match &self.lease {
                Some(lease) => (StatusCode::OK, lease.to_string()).into_response(),
                None => refusal(StatusCode::NOT_FOUND, "NotFound"),
            };
        }
        let mut lease: Value = serde_json::from_slice(body).unwrap();
        let over = lease["metadata"].get("resourceVersion").cloned();
        if over != current {
            return refusal(StatusCode::CONFLICT, "Conflict");
        }
        self.version += 1;
        lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.lease = Some(lease.clone());
        (StatusCode::OK, lease.to_string()).into_response()
    }
}

fn refusal(code: StatusCode, reason: &str) -> Response {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "reason": reason, "message": reason, "code": code.as_u16(),
    });
    (code, status.to_string()).into_response()
}

struct Operator {
    election: Election,
    leading: Leading,
    /// A client as the reconciles have it.
    maps: Api<ConfigMap>,
}

fn operator(url: &str, identity: &str) -> Operator {
    operator_with(url, identity, Timing::new(4, 2, 1).unwrap())
}

fn operator_with(url: &str, identity: &str, timing: Timing) -> Operator {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = Config::new(url.parse().unwrap());
    let (fence, leading) = (Fence::closed(), Leading::new(false));
    let unfenced = fence::client(
        config.clone(),
        Fence::open(),
        Health::default(),
        Default::default(),
    )
    .unwrap();
    let client =
        fence::client(config, fence.clone(), Health::default(), Default::default()).unwrap();
    let candidate = Candidate {
        namespace: "ops".to_owned(),
        name: "tidelock".to_owned(),
        identity: identity.to_owned(),
    };
    let election = Election::new(unfenced, candidate, timing, fence, leading.clone());
    Operator {
        election,
        leading,
        maps: Api::namespaced(client, "shop"),
    }
}

async fn writes(maps: &Api<ConfigMap>) -> bool {
    let map = ConfigMap::default();
    maps.create(&PostParams::default(), &map).await.is_ok()
}

#[tokio::test]
async fn one_leads_and_hands_over_at_once_when_it_is_told_to_stop() {
    let server = Server::default();
    let url = server.start().await;
    let (mut first, mut second) = (operator(&url, "first"), operator(&url, "second"));
    assert!(!writes(&first.maps).await, "it writes before it leads");

    // The first leads, and renews past the length of its lease.
    let both = async {
        tokio::join!(first.election.keep(), async {
            first.leading.wait().await;
            second.election.keep().await
        })
    };
    let watched = tokio::time::timeout(Duration::from_secs(5), both).await;
    assert!(watched.is_err(), "a term ended");
    assert_eq!(server.holder().as_deref(), Some("first"));
    assert!(first.leading.is_leading() && !second.leading.is_leading());
    assert!(writes(&first.maps).await);
    assert!(!writes(&second.maps).await, "one that stands by writes");

    let since = Instant::now();
    first.election.resign().await;
    assert_eq!(server.holder(), None);
    assert!(!writes(&first.maps).await, "it writes after it resigned");
    tokio::select! {
        lost = second.election.keep() => panic!("{lost}"),
        () = second.leading.wait() => {}
    }
    assert!(
        since.elapsed() < Duration::from_secs(3),
        "{:?}",
        since.elapsed()
    );
    assert_eq!(server.holder().as_deref(), Some("second"));
    assert_eq!(server.transitions(), 1);
    assert!(
        second
            .maps
            .delete("x", &DeleteParams::default())
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_leader_that_hears_nothing_is_gone_before_another_one_may_lead() {
    let server = Server::default();
    let url = server.start().await;
    let mut first = operator(&url, "first");
    tokio::select! {
        lost = first.election.keep() => panic!("{lost}"),
        () = first.leading.wait() => {}
    }
    let since = Instant::now();
    server.0.lock().unwrap().silent = true;
    let lost = first.election.keep().await;
    let took = since.elapsed();
    assert_eq!(lost, Lost::RanOut(Duration::from_secs(2)));
    assert!(took < Duration::from_secs(3), "{took:?}");
    server.0.lock().unwrap().silent = false;
    assert!(!writes(&first.maps).await, "it writes without a lease");
    assert_eq!(server.0.lock().unwrap().writes, Vec::<String>::new());
    assert_eq!(server.holder().as_deref(), Some("first"));
}

#[tokio::test]
async fn a_leader_that_sleeps_past_its_lease_writes_nothing_and_steps_down() {
    let server = Server::default();
    let url = server.start().await;
    let (mut first, mut second) = (operator(&url, "first"), operator(&url, "second"));
    tokio::select! {
        lost = first.election.keep() => panic!("{lost}"),
        () = first.leading.wait() => {}
    }
    // Nobody polls the first: it sleeps.
    tokio::select! {
        lost = second.election.keep() => panic!("{lost}"),
        () = second.leading.wait() => {}
    }
    assert_eq!(server.holder().as_deref(), Some("second"));
    assert!(first.leading.is_leading(), "it could not notice yet");
    assert!(!writes(&first.maps).await, "it writes in its sleep");
    assert!(matches!(first.election.keep().await, Lost::RanOut(_)));
    assert!(!first.leading.is_leading());
    assert_eq!(server.0.lock().unwrap().writes, Vec::<String>::new());
}

#[tokio::test]
async fn a_server_that_answers_after_three_seconds_does_not_cost_the_lease() {
    let server = Server::default();
    let url = server.start().await;
    let timing = Timing::new(15, 10, 2).unwrap();
    let mut first = operator_with(&url, "first", timing);
    tokio::select! {
        lost = first.election.keep() => panic!("{lost}"),
        () = first.leading.wait() => {}
    }
    server.0.lock().unwrap().slow = Duration::from_secs(3);
    let longer_than_a_term = Duration::from_secs(12);
    let kept = tokio::time::timeout(longer_than_a_term, first.election.keep()).await;
    assert!(kept.is_err(), "it lost the lease: {kept:?}");
    server.0.lock().unwrap().slow = Duration::ZERO;
    assert!(writes(&first.maps).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_does_not_yield_holds_up_no_renewal() {
    let server = Server::default();
    let url = server.start().await;
    let Operator {
        election,
        leading,
        maps,
    } = operator(&url, "first");
    let mut keeper = Keeper::start(Some(election), async {});
    tokio::select! {
        ended = keeper.ended() => panic!("{ended}"),
        () = leading.wait() => {}
    }
    // Longer than a term and than a lease.
    std::thread::sleep(Duration::from_secs(5));
    assert!(leading.is_leading());
    assert!(writes(&maps).await, "the lease is not renewed");
    assert_eq!(server.transitions(), 0);
    keeper.resign().await;
    assert_eq!(server.holder(), None);
    assert!(!writes(&maps).await, "it writes after it resigned");
}

#[tokio::test]
async fn a_lease_that_is_lost_ends_the_keeper() {
    let server = Server::default();
    let url = server.start().await;
    let first = operator(&url, "first");
    let mut keeper = Keeper::start(Some(first.election), async {});
    first.leading.wait().await;
    server.0.lock().unwrap().silent = true;
    let ended = keeper.ended().await;
    assert!(matches!(ended, Ended::Lost(Lost::RanOut(_))), "{ended}");
    assert!(!writes(&first.maps).await, "it writes without a lease");
}
