//! Builds the Go programs of checks, test cluster and benchmarks once, into a cache outside the
//! checkout.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::host;
use crate::place::Place;
use crate::run;

/// A Go module under `tests/` and the programs built from it.
#[derive(Clone, Copy)]
struct Module {
    /// Whom it is for.
    parent: &'static str,
    folder: &'static str,
    linker_flags: &'static str,
    /// Name of the program, package it is built from.
    programs: &'static [(&'static str, &'static str)],
}

/// Reported by the API server and kubectl, and part of the cache key.
const KUBERNETES_FLAGS: &str = "-s -w \
    -X k8s.io/component-base/version.gitVersion=v1.35.4 \
    -X k8s.io/component-base/version.gitMajor=1 \
    -X k8s.io/component-base/version.gitMinor=35 \
    -X k8s.io/client-go/pkg/version.gitVersion=v1.35.4 \
    -X k8s.io/client-go/pkg/version.gitMajor=1 \
    -X k8s.io/client-go/pkg/version.gitMinor=35";

const MODULES: &[Module] = &[
    Module {
        parent: "cluster",
        folder: "etcd",
        linker_flags: "-s -w",
        programs: &[("etcd", "go.etcd.io/etcd/server/v3")],
    },
    Module {
        parent: "cluster",
        folder: "kubernetes",
        linker_flags: KUBERNETES_FLAGS,
        programs: &[
            ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
            ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
            (
                "kube-controller-manager",
                "k8s.io/kubernetes/cmd/kube-controller-manager",
            ),
            ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
            ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
            ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
        ],
    },
    Module {
        parent: "cluster",
        folder: "helm",
        linker_flags: "-s -w",
        programs: &[("helm", "helm.sh/helm/v4/cmd/helm")],
    },
    Module {
        parent: "cluster",
        folder: "pause",
        linker_flags: "-s -w",
        programs: &[("pause", ".")],
    },
];

/// The S3 server of tests.
const S3_SERVER: Module = Module {
    parent: "cluster",
    folder: "versitygw",
    linker_flags: "-s -w",
    programs: &[("versitygw", "github.com/versity/versitygw/cmd/versitygw")],
};

/// What the mover's speed is measured beside.
const PEERS: &[Module] = &[
    Module {
        parent: "bench",
        folder: "restic",
        linker_flags: "-s -w",
        programs: &[("restic", "github.com/restic/restic/cmd/restic")],
    },
    Module {
        parent: "bench",
        folder: "kopia",
        linker_flags: "-s -w",
        programs: &[("kopia", "github.com/kopia/kopia")],
    },
    Module {
        parent: "bench",
        folder: "rclone",
        linker_flags: "-s -w",
        programs: &[("rclone", ".")],
    },
];

/// The built programs.
#[derive(Clone, Debug)]
pub struct Programs {
    folders: Vec<PathBuf>,
}

impl Programs {
    /// The path of a program.
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        self.folders
            .iter()
            .map(|folder| folder.join(name))
            .find(|path| path.exists())
            .with_context(|| format!("{name} is not among the built programs"))
    }

    /// The folder that kubectl lies in.
    pub fn kubectl_folder(&self) -> Result<PathBuf> {
        let path = self.path("kubectl")?;
        Ok(path.parent().context("a program has a folder")?.to_owned())
    }
}

/// Builds all programs that the cache does not hold yet.
pub fn ensure_programs(place: &Place) -> Result<Programs> {
    ensure(place, MODULES)
}

/// Builds Helm alone unless the cache holds it: what is checked without a cluster needs no more.
pub fn ensure_helm(place: &Place) -> Result<PathBuf> {
    let helm: Vec<Module> = MODULES
        .iter()
        .filter(|module| module.folder == "helm")
        .copied()
        .collect();
    ensure(place, &helm)?.path("helm")
}

/// Builds the S3 server that tests of storage run against, unless the cache holds it.
pub fn ensure_s3_server(place: &Place) -> Result<PathBuf> {
    ensure(place, &[S3_SERVER])?.path("versitygw")
}

/// Builds the programs that only benchmarks need, unless the cache holds them.
pub fn ensure_peers(place: &Place) -> Result<Programs> {
    ensure(place, PEERS)
}

fn ensure(place: &Place, modules: &[Module]) -> Result<Programs> {
    let mut folders = Vec::new();
    let mut wanted = Vec::new();
    for module in modules {
        let source = place
            .checkout
            .join("tests")
            .join(module.parent)
            .join(module.folder);
        let folder =
            place
                .cache
                .join("go-bin")
                .join(format!("{}-{}", module.folder, key(module, &source)?));
        for (name, package) in module.programs {
            if !folder.join(name).exists() {
                wanted.push((module, source.clone(), folder.clone(), *name, *package));
            }
        }
        folders.push(folder);
    }
    if !wanted.is_empty() && !host::has_program("go") {
        bail!(
            "Go is missing: Helm, the S3 server of tests, the test cluster and what the mover is \
             measured beside are built from source with it; \
             install Go 1.26 (https://go.dev/dl/) and try again"
        );
    }
    let count = wanted.len();
    for (index, (module, source, folder, name, package)) in wanted.into_iter().enumerate() {
        let what = format!("go build {name} ({} of {count})", index + 1);
        build(&what, module, &source, &folder, name, package, place)?;
    }
    Ok(Programs { folders })
}

/// Puts the program into place under its name only when it is whole.
fn build(
    what: &str,
    module: &Module,
    source: &Path,
    folder: &Path,
    name: &str,
    package: &str,
    place: &Place,
) -> Result<()> {
    fs::create_dir_all(folder)?;
    let partial = folder.join(format!(".{name}.{}", std::process::id()));
    let mut command = Command::new("go");
    command
        .args(["build", "-trimpath", "-ldflags", module.linker_flags, "-o"])
        .arg(&partial)
        .arg(package)
        .current_dir(source)
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=readonly")
        .env("GOWORK", "off");
    let log = place.cache.join(format!("logs/go-build-{name}.log"));
    run::logged(what, &mut command, &log)?;
    fs::rename(&partial, folder.join(name))?;
    Ok(())
}

/// Changes when the pinned versions, the flags or our own sources change.
fn key(module: &Module, source: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    for file in ["go.mod", "go.sum", "main.go"] {
        let path = source.join(file);
        if path.exists() {
            let content =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            hash.update((content.len() as u64).to_le_bytes());
            hash.update(content);
        }
    }
    hash.update(module.linker_flags);
    for (name, package) in module.programs {
        hash.update(name);
        hash.update(package);
    }
    Ok(hex::encode(&hash.finalize()[..6]))
}
