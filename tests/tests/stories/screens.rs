//! What stays on a terminal and is drawn again, seen through a terminal.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use stories::lab::Lab;
use stories::pipeline;
use stories::poll::until;
use stories::program::python;

const ROWS: u16 = 12;
const COLUMNS: u16 = 44;

/// Runs a program in a terminal of its own, of the given rows and columns; what it writes goes to stdout.
const TERMINAL: &str = "\
import fcntl, os, pty, struct, sys, termios
rows, columns, argv = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))
pid = os.fork()
if pid == 0:
    for stream in 0, 1, 2:
        os.dup2(slave, stream)
    os.execv(argv[0], argv)
os.close(slave)
while True:
    try:
        data = os.read(master, 65536)
    except OSError:
        break
    if not data:
        break
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";

struct Watched {
    child: Child,
    output: PathBuf,
}

impl Watched {
    fn start(lab: &Lab, words: &[&str]) -> Self {
        let program = lab.command(words);
        let output = lab.root().join(format!("screen-{}", words[0]));
        let mut terminal = Command::new(python());
        terminal.args(["-c", TERMINAL, &ROWS.to_string(), &COLUMNS.to_string()]).arg(program.get_program());
        terminal.args(program.get_args()).current_dir(lab.root()).env("TERM", "xterm");
        terminal.stdin(Stdio::null()).stdout(File::create(&output).unwrap());
        Self { child: terminal.spawn().unwrap(), output }
    }

    fn written(&self) -> Vec<u8> {
        fs::read(&self.output).unwrap()
    }

    /// The rows that a person sees.
    fn rows(&self) -> Vec<String> {
        let mut terminal = vt100::Parser::new(ROWS, COLUMNS, 0);
        terminal.process(&self.written());
        terminal.screen().rows(0, COLUMNS).map(|row| row.trim_end().to_owned()).collect()
    }

    fn shows(&self, wanted: &str) -> Vec<String> {
        until(&format!("`{wanted}` is seen"), Duration::from_secs(20), || {
            let rows = self.rows();
            rows.iter().any(|row| row.contains(wanted)).then_some(rows)
        })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // It may have ended by itself; a closed terminal ends what it holds.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_is_watched_is_drawn_in_place_and_fits_a_narrow_terminal() {
    let lab = Lab::start();
    let job =
        lab.accepted(&pipeline::command(&lab, "a-job-with-quite-a-long-name-for-narrow-screens", &["sleep", "300"], 1));
    let _ = lab.qctl(["wait", &job, "--for", "started"]).ok();
    let ps = Watched::start(&lab, &["ps", "-a", "-w"]);
    let describe = Watched::start(&lab, &["describe", &job, "-w"]);
    let top = Watched::start(&lab, &["top"]);
    let rows = ps.shows(&job);
    assert!(rows[0].starts_with("ID") && rows[1].ends_with('…') && rows[2].is_empty(), "{rows:#?}");
    describe.shows("phase      running");
    let rows = top.shows("NODE");
    assert!(rows[0].starts_with("controller") && rows[0].ends_with('…'), "{rows:#?}");

    // In place: two more rows come below the header, and nothing is drawn twice.
    let other = lab.accepted(&pipeline::command(&lab, "b", &["true"], 1));
    let rows = ps.shows(&other);
    assert_eq!(rows.iter().filter(|row| row.contains(&job)).count(), 1, "{rows:#?}");
    assert_eq!(rows.iter().filter(|row| row.starts_with("ID")).count(), 1, "{rows:#?}");
    let _ = lab.qctl(["cancel", &job, "--force"]).ok();
    describe.shows("phase      cancelled");
    for watched in [&ps, &describe, &top] {
        let written = watched.written();
        let cleared = written.windows(4).any(|bytes| bytes == b"\x1b[2J");
        assert!(!cleared, "the screen is never cleared, so it does not flicker");
    }

    // Without its controller a list stays, and says so.
    lab.stop();
    let rows = ps.shows("retrying");
    assert!(rows.iter().any(|row| row.contains(&job)), "{rows:#?}");
}
