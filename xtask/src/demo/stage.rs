//! Narration, and commands that are shown as they are run.

use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

use crate::cluster::Running;
use crate::run;

/// Before every command: its complaints belong to its output, and no failure is passed over.
const PRELUDE: &str = "set -euo pipefail; exec 2>&1\n";

/// Where the story is told.
pub struct Stage<'r> {
    /// The cluster it is played on.
    pub running: &'r Running,
    /// Folders behind the volumes.
    pub volumes: PathBuf,
    /// Where kubectl is.
    pub kubectl_folder: PathBuf,
    /// Where commands start.
    folder: PathBuf,
    path: OsString,
    /// Shell functions that commands may use.
    functions: String,
    act: u8,
    colour: bool,
}

impl<'r> Stage<'r> {
    /// Makes the commands of the story talk to this cluster and to no other.
    pub fn set(running: &'r Running) -> Result<Self> {
        let kubectl_folder = running.programs.kubectl_folder()?;
        let mut path = kubectl_folder.clone().into_os_string();
        path.push(":");
        path.push(env::var_os("PATH").unwrap_or_default());
        Ok(Self {
            running,
            volumes: running.cluster.volumes(),
            kubectl_folder,
            folder: running.cluster.place.checkout.clone(),
            path,
            functions: String::new(),
            act: 0,
            colour: std::io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none(),
        })
    }

    /// Begins the next numbered part.
    pub fn act(&mut self, title: &str) {
        self.act += 1;
        self.heading(&format!("{}. {title}", self.act));
    }

    /// Begins a part.
    pub fn heading(&self, title: &str) {
        run::print(format!("\n{}", self.paint("1;36", title)));
    }

    /// Says something.
    pub fn tell(&self, text: &str) {
        run::print(format!("\n{text}"));
    }

    /// Starts all further commands in the folders behind the volumes.
    pub fn enter_volumes(&mut self) {
        self.folder.clone_from(&self.volumes);
        let line = format!("$ cd {}", self.volumes.display());
        run::print(format!("\n{}", self.paint("1", &line)));
    }

    /// Starts all further commands in the checkout again.
    pub fn leave_volumes(&mut self) {
        self.folder.clone_from(&self.running.cluster.place.checkout);
        let line = format!("$ cd {}", self.folder.display());
        run::print(format!("\n{}", self.paint("1", &line)));
    }

    /// Shows and defines a shell function for the commands that follow.
    pub fn define(&mut self, function: &str) {
        self.print_command(function);
        self.functions.push_str(function);
        self.functions.push('\n');
    }

    /// Shows a command, runs it and shows its output, which is returned.
    ///
    /// # Errors
    /// When the command does not succeed.
    pub fn show(&self, script: &str) -> Result<String> {
        let (status, output) = self.play(script)?;
        if !status.success() {
            bail!("the last command shown above failed ({status}): `{script}`");
        }
        Ok(output)
    }

    /// The same for a command that has to fail.
    ///
    /// # Errors
    /// When the command succeeds, or fails otherwise than with exit code 1.
    pub fn show_failing(&self, script: &str) -> Result<String> {
        let (status, output) = self.play(script)?;
        if status.code() != Some(1) {
            bail!(
                "the last command shown above should have found a difference, but ended with \
                 {status}: `{script}`"
            );
        }
        Ok(output)
    }

    /// Runs a command without showing it, and returns its output.
    pub fn ask(&self, script: &str) -> Result<String> {
        Ok(run::output(&mut self.shell(script))?.trim().to_owned())
    }

    /// A shell as all commands of the story get it.
    pub fn shell(&self, script: &str) -> Command {
        let mut shell = Command::new("bash");
        shell
            .arg("-c")
            .arg(format!("{PRELUDE}{}{script}", self.functions))
            .current_dir(&self.folder)
            .env("KUBECONFIG", self.running.cluster.kubeconfig())
            .env("KUBECACHEDIR", self.running.cluster.discovery_cache())
            .env("VOLUMES", &self.volumes)
            .env("PATH", &self.path)
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null());
        shell
    }

    /// Shows a command line as a person would type it.
    pub fn print_command(&self, script: &str) {
        let mut lines = script.lines();
        let first = lines.next().unwrap_or_default();
        run::print(format!("\n{}", self.paint("1", &format!("$ {first}"))));
        for line in lines {
            run::print(self.paint("1", &format!("> {line}")));
        }
    }

    /// Shows a line of output.
    pub fn print_output(&self, line: &str) {
        run::print(format!("  {line}"));
    }

    fn play(&self, script: &str) -> Result<(ExitStatus, String)> {
        self.print_command(script);
        let mut child = self
            .shell(script)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start bash")?;
        let stdout = child.stdout.take().context("bash has no output")?;
        let mut output = String::new();
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            self.print_output(&line);
            output.push_str(&line);
            output.push('\n');
        }
        Ok((child.wait()?, output))
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{style}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
