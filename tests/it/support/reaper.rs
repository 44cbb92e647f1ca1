//! Whatever becomes of the test process, nothing that it started outlives it.
//!
//! Ordinary ends are dealt with by `Drop`. A test process that is killed, or a broker that lives in a
//! static, is dealt with by a small shell that holds the other end of a pipe: when the pipe closes, it
//! kills what is still written down and removes the folders.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{LazyLock, Mutex};

const SHELL: &str = r#"
trap '' INT TERM HUP
pids=' '
while read -r what value; do
  case $what in
    kill) pids="$pids$value " ;;
    spare) pids=$(printf '%s' "$pids" | sed "s/ $value / /") ;;
    remove) folders="$folders $value" ;;
  esac
done
for pid in $pids; do kill -9 "$pid" 2>/dev/null; done
for folder in $folders; do
  umount "$folder" 2>/dev/null
  rm -rf "$folder"
done
"#;

/// Nobody waits for the shell: it outlives this process, that is what it is for.
#[allow(clippy::zombie_processes)]
static SHELL_INPUT: LazyLock<Mutex<ChildStdin>> = LazyLock::new(|| {
    let mut shell = Command::new("sh");
    shell.args(["-c", SHELL]).stdin(Stdio::piped());
    shell.stdout(Stdio::null()).stderr(Stdio::null());
    // Its own group, so that Ctrl-C on a terminal does not reach it before its work is done.
    let mut child = shell.process_group(0).spawn().unwrap();
    Mutex::new(child.stdin.take().unwrap())
});

/// To be killed when the test process ends.
pub fn adopt(pid: u32) {
    tell(&format!("kill {pid}"));
}

/// Has ended already: its number may be somebody else's by now.
pub fn spare(pid: u32) {
    tell(&format!("spare {pid}"));
}

/// A folder to be removed (and unmounted) when the test process ends.
pub fn remove_at_exit(folder: &Path) {
    tell(&format!("remove {}", folder.display()));
}

fn tell(line: &str) {
    let mut input = SHELL_INPUT.lock().unwrap();
    writeln!(input, "{line}").unwrap();
}
