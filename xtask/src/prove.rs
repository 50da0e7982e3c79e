//! Proves that the test cluster is a real one, and that it leaves nothing behind.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cluster::{self, Cluster, Running};
use crate::image;
use crate::place::Place;
use crate::run;

/// Never the cluster that a person works with.
const NAME: &str = "prove";
const NAMESPACE: &str = "--namespace=proof";
/// Pods start within seconds; the deadline only bounds a broken cluster.
const TIMEOUT: &str = "--timeout=60s";
const DEADLINE: Duration = Duration::from_secs(60);
/// Asks the Service's address in `tests/cluster/proof.yaml` which node answers. Plain `nc`:
/// Debian's static busybox crashes in `wget` when it looks up even a numeric host.
const ASK_SERVICE: &str =
    r"printf 'GET /index.html HTTP/1.0\r\n\r\n' | nc -w 2 10.96.0.80 80 | tail -1";
const ASK_API_SERVER: &str = "nc -w 2 10.96.0.1 443 < /dev/null";
const IMAGE_BYTES: u64 = 8 << 20;
/// The tests' user, who is not root.
const WORKLOAD_USER: u32 = 65532;

/// Starts a cluster, asks it for everything that the stories rely on, breaks it, and removes it.
pub fn prove(place: &Place) -> Result<()> {
    cluster::down(place, NAME)?;
    let before = outside()?;
    let result = cluster::up(place, NAME, 2).and_then(|running| {
        running.load_images(&[image::toolbox(place)?])?;
        apply(&running)?;
        hardened_job_runs(&running)?;
        greedy_job_is_killed(&running)?;
        services_and_exec_work(&running)?;
        metrics_and_audit_log_are_there(&running)?;
        proven("kubelet and containerd killed: `up` starts the cluster anew");
        running.cluster.kill_daemon("node-2-kubelet")?;
        running.cluster.kill_daemon("node-1-containerd")?;
        let again = cluster::up(place, NAME, 1)?;
        running.load_images(&[image::toolbox(place)?])?;
        apply(&again)?;
        hardened_job_runs(&again)?;
        mount_image(&again)?;
        proven("API server and etcd killed while pods run: `down` removes all of it");
        again.cluster.kill_daemon("kube-apiserver")?;
        again.cluster.kill_daemon("etcd")
    });
    let ended = cluster::down(place, NAME);
    result?;
    ended?;
    let after = outside()?;
    ensure!(
        before == after,
        "links, routes or iptables rules outside the cluster changed\nbefore:\n{before}\nafter:\n{after}"
    );
    let traces = traces(&Cluster::named(place, NAME)?.id)?;
    ensure!(traces.is_empty(), "`down` left traces:\n{traces}");
    run::say("proven: a real cluster, and nothing of it is left");
    Ok(())
}

fn proven(what: &str) {
    run::say(format!("- {what}"));
}

/// The machine's own network, which no cluster may touch.
fn outside() -> Result<String> {
    let mut seen = String::new();
    for command in [
        ["ip", "-brief", "link"].as_slice(),
        &["ip", "route"],
        &["iptables-save"],
    ] {
        seen += &run::output(&mut run::command(command[0], &command[1..]))?;
    }
    // iptables-save stamps the time into comments and counts packets.
    Ok(seen
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(" [").next().unwrap_or(line).to_owned() + "\n")
        .collect())
}

/// What carries the cluster's id in its name, found without the code that removes it.
fn traces(id: &str) -> Result<String> {
    // The brackets keep the search from finding itself.
    let (first, rest) = id.split_at(1);
    let search = format!(
        "find /sys/fs/cgroup /run/netns /var/log /var/lib/cni -name '*{id}*' 2>/dev/null
         grep {id} /proc/self/mounts
         losetup --list | grep {id}
         grep --text --files-with-matches 'tidelock/[{first}]{rest}' /proc/[0-9]*/cmdline 2>/dev/null
         true"
    );
    run::output(&mut run::command("/bin/sh", ["-c", &search]))
}

fn apply(running: &Running) -> Result<()> {
    let volume = running.cluster.volumes().join("proof");
    fs::create_dir_all(&volume)?;
    let template = running
        .cluster
        .place
        .checkout
        .join("tests/cluster/proof.yaml");
    let manifest = fs::read_to_string(&template)
        .with_context(|| format!("cannot read {}", template.display()))?
        .replace("VOLUME", &volume.to_string_lossy());
    let filled = running.cluster.dir.join("proof.yaml");
    fs::write(&filled, manifest)?;
    run::output(
        running
            .kubectl()?
            .arg("apply")
            .arg("--filename")
            .arg(filled),
    )?;
    Ok(())
}

fn in_proof(running: &Running, arguments: &[&str]) -> Result<String> {
    run::output(running.kubectl()?.arg(NAMESPACE).args(arguments))
}

fn hardened_job_runs(running: &Running) -> Result<()> {
    in_proof(
        running,
        &["wait", "--for=condition=complete", "job/hardened", TIMEOUT],
    )?;
    let message = in_proof(
        running,
        &[
            "get",
            "pods",
            "--selector=job-name=hardened",
            "--output=jsonpath={.items[0].status.containerStatuses[0].state.terminated.message}",
        ],
    )?;
    ensure!(
        message == r#"{"proof":"hardened"}"#,
        "termination message: {message}"
    );
    let volume = running.cluster.volumes().join("proof");
    let file = volume.join("file");
    ensure!(
        fs::read_to_string(&file)? == "proven\n",
        "wrong bytes in the volume"
    );
    ensure!(
        fs::metadata(&file)?.uid() == WORKLOAD_USER,
        "wrong owner in the volume"
    );
    ensure!(
        fs::read_to_string(volume.join("answer"))? == "42\n",
        "sqlite3 in the toolbox does not work"
    );
    proven("a Job without root, privileges and writable root wrote its volume and its message");
    Ok(())
}

fn greedy_job_is_killed(running: &Running) -> Result<()> {
    in_proof(
        running,
        &["wait", "--for=condition=failed", "job/greedy", TIMEOUT],
    )?;
    let reason = in_proof(
        running,
        &[
            "get",
            "pods",
            "--selector=job-name=greedy",
            "--output=jsonpath={.items[0].status.containerStatuses[0].state.terminated.reason}",
        ],
    )?;
    ensure!(
        reason == "OOMKilled",
        "the pod over its memory limit ended with: {reason}"
    );
    proven("a pod over its memory limit was killed for it");
    Ok(())
}

/// Leaves a file system in a file mounted, as a story that crashes does.
fn mount_image(running: &Running) -> Result<()> {
    let at = running.cluster.volumes().join("image");
    fs::create_dir_all(&at)?;
    let image = running.cluster.volumes().join("image.ext4");
    fs::File::create(&image)?.set_len(IMAGE_BYTES)?;
    run::output(run::command("mkfs.ext4", ["-q", "-F"]).arg(&image))?;
    run::output(run::command("mount", ["-o", "loop"]).args([&image, &at])).map(|_| ())
}

fn services_and_exec_work(running: &Running) -> Result<()> {
    in_proof(running, &["rollout", "status", "daemonset/server", TIMEOUT])?;
    let mut answered = BTreeSet::new();
    run::wait_for("the Service to answer from both nodes", DEADLINE, || {
        let node = in_proof(
            running,
            &["exec", "daemonset/server", "--", "sh", "-c", ASK_SERVICE],
        )?;
        if node.starts_with("node-") {
            answered.insert(node);
        }
        Ok(answered.len() == 2)
    })?;
    in_proof(
        running,
        &["exec", "daemonset/server", "--", "sh", "-c", ASK_API_SERVER],
    )?;
    proven("kubectl exec, a Service over two nodes, and the API server from a pod");
    Ok(())
}

fn metrics_and_audit_log_are_there(running: &Running) -> Result<()> {
    let metrics = run::output(running.kubectl()?.args(["get", "--raw=/metrics"]))?;
    ensure!(
        metrics.contains("apiserver_request_total"),
        "no request counts in /metrics"
    );
    let audit = fs::read_to_string(running.cluster.audit_log())?;
    ensure!(
        audit.contains(r#""verb":"create""#),
        "no writes in the audit log"
    );
    proven("the API server's metrics and audit log");
    Ok(())
}
