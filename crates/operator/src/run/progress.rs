//! How far a run under way is: asked of its mover, which has no way to tell by itself.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tidelock_api::{ProgressStatus, ProgressStep};
use tidelock_core::progress::{Counted, Expected, outlook, pause};
use tidelock_protocol::{MAX_PROGRESS_BYTES, PROGRESS_PORT, ProgressReport, Step};

use crate::context::Context;
use crate::convert::{self, to_i64, whole_seconds};
use crate::error::Error;
use crate::owners;
use crate::run::kind::Run;
use crate::run::observe::pods_of;

/// How long a mover may take over an answer; a reconcile waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long one that did not answer is left alone: where none can be reached, reconciles must not
/// spend their time on waiting for them.
const SILENCE: SignedDuration = SignedDuration::from_secs(20);

/// Asks movers over plain HTTP: what they tell are numbers that nothing depends on.
#[derive(Debug)]
pub struct Asker {
    client: Client<HttpConnector, Empty<Bytes>>,
    /// Since when the mover of a run, by its UID, has not answered.
    silent: Mutex<HashMap<String, Timestamp>>,
}

impl Default for Asker {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(PATIENCE));
        let mut builder = Client::builder(TokioExecutor::new());
        Self {
            client: builder.pool_max_idle_per_host(0).build(connector),
            silent: Mutex::default(),
        }
    }
}

impl Asker {
    /// What the mover at `address` answers at `now`, unless it did not a moment ago.
    async fn ask(&self, address: IpAddr, run_uid: &str, now: Timestamp) -> Option<ProgressReport> {
        let was_silent = {
            let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
            silent.retain(|_, since| now.duration_since(*since).abs() < SILENCE);
            silent.contains_key(run_uid)
        };
        if was_silent {
            return None;
        }
        let answer = self.answer(address, run_uid).await;
        if answer.is_none() {
            let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
            silent.insert(run_uid.to_owned(), now);
        }
        answer
    }

    /// What the mover at `address` answers; none where it cannot be reached in time, or does not
    /// answer as a mover of the run with this UID does.
    async fn answer(&self, address: IpAddr, run_uid: &str) -> Option<ProgressReport> {
        let place = std::net::SocketAddr::from((address, PROGRESS_PORT));
        let uri = format!("http://{place}/").parse().ok()?;
        let answer = async {
            let answer = self.client.get(uri).await.ok()?;
            let body = Limited::new(answer.into_body(), MAX_PROGRESS_BYTES);
            Some(body.collect().await.ok()?.to_bytes())
        };
        let body = tokio::time::timeout(PATIENCE, answer).await.ok()??;
        ProgressReport::parse(&body, run_uid)
    }
}

/// Asks the mover of `run` unless that was done a moment ago; none where there is nothing new.
///
/// # Errors
/// None that has to do with the mover: a run whose progress is not known is a run all the same.
pub async fn hear<R: Run>(
    run: &R,
    ctx: &Context,
    job: Option<&Job>,
    now: Timestamp,
) -> Result<Option<ProgressStatus>, Error> {
    let before = run.progress().heard;
    let (Some(started), Some(job)) = (run.progress().start_time, job) else {
        return Ok(None);
    };
    let is_fresh =
        |heard: &ProgressStatus| now.duration_since(heard.time.0).abs() < pause(started, now);
    if before.is_some_and(is_fresh) {
        return Ok(None);
    }
    let uid = convert::uid(run)?;
    let Some(address) = address_of(ctx, &convert::namespace(run)?, &uid, job) else {
        return Ok(None);
    };
    let report = ctx.asker.ask(address, &uid, now).await;
    Ok(report.map(|report| told(&report, before, run.expected(ctx), now)))
}

/// When to ask next.
pub fn next<R: Run>(run: &R, now: Timestamp) -> Option<Timestamp> {
    let started = run.progress().start_time?;
    now.checked_add(pause(started, now)).ok()
}

/// Where the newest pod of `job` itself listens.
fn address_of(ctx: &Context, namespace: &str, run_uid: &str, job: &Job) -> Option<IpAddr> {
    let job_uid = job.uid()?;
    newest_address(&pods_of(ctx, namespace, run_uid), &job_uid)
}

/// The address of the newest of `pods` that the Job with this UID controls: what bears the labels of
/// a run alone may be anybody's.
fn newest_address(pods: &[Arc<Pod>], job_uid: &str) -> Option<IpAddr> {
    let own = pods
        .iter()
        .filter(|pod| owners::is_controlled_by(&pod.metadata, job_uid));
    let newest = own.max_by_key(|pod| convert::created(&pod.metadata))?;
    newest.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}

fn told(
    report: &ProgressReport,
    before: Option<&ProgressStatus>,
    expected: Expected,
    now: Timestamp,
) -> ProgressStatus {
    let (step, word) = step_of(report.step);
    let counted = Counted {
        step: word,
        at: now,
        bytes: report.bytes,
        files: report.files,
    };
    let before = before.map(|before| Counted {
        step: word_of(before.step),
        at: before.time.0,
        bytes: before.bytes.try_into().unwrap_or_default(),
        files: before.files.try_into().unwrap_or_default(),
    });
    let expected = match report.step {
        Step::Saving => expected,
        _ => Expected {
            bytes: report.total_bytes,
            files: report.total_files,
            is_guess: false,
        },
    };
    let outlook = outlook(&counted, before.as_ref(), expected);
    ProgressStatus {
        time: whole_seconds(now),
        step,
        bytes: to_i64(report.bytes),
        total_bytes: expected.bytes.map(to_i64),
        files: to_i64(report.files),
        total_files: expected.files.map(to_i64),
        bytes_per_second: outlook.bytes_per_second.map(to_i64),
        estimated_step_end: outlook.step_end.map(whole_seconds),
        summary: outlook.summary,
    }
}

fn step_of(step: Step) -> (ProgressStep, &'static str) {
    let step = match step {
        Step::Preparing => ProgressStep::Preparing,
        Step::Saving => ProgressStep::Saving,
        Step::Verifying => ProgressStep::Verifying,
        Step::Checking => ProgressStep::Checking,
        Step::Restoring => ProgressStep::Restoring,
        Step::Comparing => ProgressStep::Comparing,
    };
    (step, word_of(step))
}

fn word_of(step: ProgressStep) -> &'static str {
    match step {
        ProgressStep::Preparing => "Preparing",
        ProgressStep::Saving => "Saving",
        ProgressStep::Verifying => "Verifying",
        ProgressStep::Checking => "Checking",
        ProgressStep::Restoring => "Restoring",
        ProgressStep::Comparing => "Comparing",
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    fn report(step: Step, bytes: u64) -> ProgressReport {
        ProgressReport {
            run_uid: "u-1".into(),
            step,
            bytes,
            total_bytes: Some(400),
            files: 2,
            total_files: None,
        }
    }

    #[test]
    fn a_saving_run_is_measured_by_the_backup_before_and_any_other_by_its_own_count() {
        let guess = Expected {
            bytes: Some(1000),
            files: Some(9),
            is_guess: true,
        };
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = told(&report(Step::Saving, 100), None, guess, at(0));
        assert_eq!(first.total_bytes, Some(1000));
        assert_eq!(first.bytes_per_second, None);
        let second = told(&report(Step::Saving, 200), Some(&first), guess, at(10));
        assert_eq!(second.bytes_per_second, Some(10));
        assert_eq!(second.estimated_step_end.as_ref().unwrap().0, at(90));
        let third = told(&report(Step::Verifying, 100), Some(&second), guess, at(20));
        assert_eq!(
            (third.total_bytes, third.bytes_per_second),
            (Some(400), None)
        );
        assert_eq!(third.summary, "Verifying 25%: 100 B of 400 B, 2 files");
    }

    #[test]
    fn only_a_pod_that_the_runs_own_job_controls_is_asked() {
        let pod = |second: u8, controller: &str, address: &str| -> Arc<Pod> {
            let owner = serde_json::json!({
                "apiVersion": "batch/v1", "kind": "Job", "name": "now-backup",
                "uid": controller, "controller": true,
            });
            let metadata = serde_json::json!({
                "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
                "ownerReferences": [owner],
            });
            let pod = serde_json::json!({"metadata": metadata, "status": {"podIP": address}});
            Arc::new(serde_json::from_value(pod).unwrap())
        };
        let mut unowned = pod(9, "", "10.0.0.9");
        Arc::make_mut(&mut unowned).metadata.owner_references = None;
        let planted = [unowned, pod(8, "job-2", "10.0.0.8")];
        assert_eq!(newest_address(&planted, "job-1"), None);
        let [unowned, foreign] = planted;
        let first = pod(1, "job-1", "10.0.0.1");
        let second = pod(2, "job-1", "10.0.0.2");
        let newest: IpAddr = "10.0.0.2".parse().unwrap();
        let all = [first, second, unowned, foreign];
        assert_eq!(newest_address(&all, "job-1"), Some(newest));
    }

    /// Answers whatever is asked with `answer`, on the port of movers at an address of its own.
    fn mover(address: &str, answer: Vec<u8>) -> IpAddr {
        let listener = TcpListener::bind((address, PROGRESS_PORT)).unwrap();
        std::thread::spawn(move || {
            while let Ok((mut asked, _)) = listener.accept() {
                let mut question = [0; 512];
                let _ = asked.read(&mut question);
                let _ = asked.write_all(&answer);
            }
        });
        address.parse().unwrap()
    }

    fn http(body: &[u8]) -> Vec<u8> {
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        answer.push_str(&String::from_utf8_lossy(body));
        answer.into_bytes()
    }

    #[tokio::test]
    async fn what_is_no_answer_of_this_run_is_no_progress() {
        let asker = Asker::default();
        let good = report(Step::Saving, 1);
        let body = serde_json::to_vec(&good).unwrap();
        let place = mover("127.86.1.1", http(&body));
        assert_eq!(asker.answer(place, "u-1").await, Some(good));
        assert_eq!(asker.answer(place, "u-2").await, None);
        let long = mover("127.86.1.2", http(&vec![b' '; 1 << 20]));
        assert_eq!(asker.answer(long, "u-1").await, None);
        let noise = mover("127.86.1.3", b"\0\0\0".to_vec());
        assert_eq!(asker.answer(noise, "u-1").await, None);
        let nobody: IpAddr = "127.86.1.4".parse().unwrap();
        assert_eq!(asker.answer(nobody, "u-1").await, None);
    }

    #[tokio::test]
    async fn one_that_does_not_answer_is_left_alone_for_a_while() {
        let asker = Asker::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        let place: IpAddr = "127.86.1.5".parse().unwrap();
        assert_eq!(asker.ask(place, "u-1", at(0)).await, None);
        let good = report(Step::Saving, 1);
        mover("127.86.1.5", http(&serde_json::to_vec(&good).unwrap()));
        assert_eq!(asker.ask(place, "u-1", at(19)).await, None);
        assert_eq!(asker.ask(place, "u-1", at(20)).await, Some(good));
    }
}
