//! The product's image, and the fixtures that the test cluster runs, written without Docker.

mod oci;
mod toolbox;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::go::Programs;
use crate::place::Place;
use crate::run;
use oci::{Files, Start};

/// The operator and the mover.
pub const PRODUCT_NAME: &str = "tidelock.dev/tidelock:dev";
/// What holds a pod's namespaces.
pub const PAUSE_NAME: &str = "tidelock.dev/pause:dev";
/// Plain tools for the workloads of tests and the demo.
pub const TOOLBOX_NAME: &str = "tidelock.dev/toolbox:dev";

const STATIC_TARGET: &str = "x86_64-unknown-linux-gnu";
/// The mover's package, and its program.
pub const MOVER: &str = "tidelock-mover";
const PRODUCT_PACKAGES: [&str; 2] = ["tidelock-operator", MOVER];
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// An image in a file.
#[derive(Clone, Debug)]
pub struct Image {
    /// What pods call it.
    pub name: String,
    /// Of the manifest.
    pub digest: String,
    /// The OCI image layout, as a tar file.
    pub archive: PathBuf,
}

/// Builds the product's binaries and all images.
pub fn build_all(place: &Place, programs: &Programs) -> Result<Vec<Image>> {
    let images = vec![
        product(place, PRODUCT_NAME)?,
        toolbox(place)?,
        pause(place, programs)?,
    ];
    for image in &images {
        run::say(format!(
            "image {} {} ({:.1} MiB) in {}",
            image.name,
            &image.digest[..19],
            std::fs::metadata(&image.archive)?.len() as f64 / 1_048_576.0,
            image.archive.display()
        ));
    }
    Ok(images)
}

/// Builds the programs that the product's image is made of.
pub fn build_programs(place: &Place) -> Result<()> {
    run::say("building the operator and the mover (static, optimised)");
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--profile", "dist", "--target", STATIC_TARGET])
        .current_dir(&place.checkout)
        .env("CARGO_TARGET_DIR", &place.target)
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    for package in PRODUCT_PACKAGES {
        cargo.args(["--package", package]);
    }
    run::visible(&mut cargo)
}

/// Where [`build_programs`] leaves a program.
pub fn program(place: &Place, name: &str) -> PathBuf {
    place.target.join(STATIC_TARGET).join("dist").join(name)
}

/// Builds the operator and the mover, and their image, which is called `name`.
pub fn product(place: &Place, name: &str) -> Result<Image> {
    build_programs(place)?;
    let mut files = Files::default();
    for name in PRODUCT_PACKAGES {
        let built = program(place, name);
        files.copy(&format!("usr/local/bin/{name}"), 0o755, &built)?;
    }
    accounts(&mut files);
    files.copy(&CERTIFICATES[1..], 0o644, Path::new(CERTIFICATES))?;
    let start = Start {
        user: "65532:65532",
        entrypoint: &["/usr/local/bin/tidelock-operator"],
        command: &[],
    };
    oci::write(name, &files, &start, &archive(place, "tidelock"))
}

/// The sandbox image.
pub fn pause(place: &Place, programs: &Programs) -> Result<Image> {
    let mut files = Files::default();
    files.copy("pause", 0o755, &programs.path("pause")?)?;
    let start = Start {
        user: "65535:65535",
        entrypoint: &["/pause"],
        command: &[],
    };
    oci::write(PAUSE_NAME, &files, &start, &archive(place, "pause"))
}

/// The image of test workloads: busybox, coreutils, GNU tar, SQLite.
pub fn toolbox(place: &Place) -> Result<Image> {
    let mut files = Files::default();
    toolbox::fill(&mut files)?;
    accounts(&mut files);
    let start = Start {
        user: "0:0",
        entrypoint: &[],
        command: &["/bin/sh"],
    };
    oci::write(TOOLBOX_NAME, &files, &start, &archive(place, "toolbox"))
}

fn accounts(files: &mut Files) {
    files.file(
        "etc/passwd",
        0o644,
        "root:x:0:0:root:/root:/bin/sh\nnonroot:x:65532:65532:nonroot:/tmp:/bin/false\n",
    );
    files.file("etc/group", 0o644, "root:x:0:\nnonroot:x:65532:\n");
    files.folder("tmp", 0o1777);
}

fn archive(place: &Place, name: &str) -> PathBuf {
    place.target.join("image").join(format!("{name}.tar"))
}
