//! Commands to the disk, a line each on a socket, and an answer for each: `ok ...` or `error ...`.
//!
//! | command | does |
//! |---|---|
//! | `lose all\|torn\|scattered SEED` | loses power: nothing unsynced survives, a beginning of it, or any sectors of it. Whoever used the disk must have been killed |
//! | `cut all\|torn\|scattered SEED` | the same, and then answers nothing any more, neither here nor there: to be followed by a kill |
//! | `fail read\|write\|sync EIO\|ENOSPC\|none` | lets such requests fail from now on, or no longer: with ENOSPC those writes that take more room; what waits for a sync that fails is never synced |
//! | `slow MILLISECONDS` | lets every sync take so long |
//! | `state` | tells bytes that wait for a sync, syncs so far, how requests fail, and the milliseconds that a sync takes |

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::pending::{Loss, Random};
use crate::tree::{Errno, Tree};

/// What goes wrong.
#[derive(Debug, Default)]
pub struct Faults {
    pub read: Option<Errno>,
    pub write: Option<Errno>,
    pub sync: Option<Errno>,
    pub slow: Duration,
    pub syncs: u64,
}

/// The socket's file goes with it.
pub struct Listening(PathBuf);

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Take commands, on a thread, as long as the process runs.
///
/// # Errors
/// When the socket can't be made.
pub fn listen(
    path: &Path,
    tree: Arc<Mutex<Tree>>,
    faults: Arc<Mutex<Faults>>,
) -> io::Result<Listening> {
    // Of a process that was killed.
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever went away needs no answer.
            let _ = serve(&stream, &tree, &faults);
        }
    });
    Ok(Listening(path.to_owned()))
}

fn serve(stream: &UnixStream, tree: &Mutex<Tree>, faults: &Mutex<Faults>) -> io::Result<()> {
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let answer = match obey(&line, tree, faults) {
            Ok(told) => format!("ok {told}"),
            Err(why) => format!("error {line}: {why}"),
        };
        writeln!(&mut (&*stream), "{}", answer.trim_end())?;
    }
    Ok(())
}

fn obey(line: &str, tree: &Mutex<Tree>, faults: &Mutex<Faults>) -> Result<String, String> {
    let mut faults = faults.lock().unwrap_or_else(PoisonError::into_inner);
    let mut tree = tree.lock().unwrap_or_else(PoisonError::into_inner);
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        [how @ ("lose" | "cut"), loss, seed] => {
            let loss = match loss {
                "all" => Loss::All,
                "torn" => Loss::Torn,
                "scattered" => Loss::Scattered,
                _ => return Err("lose all, torn or scattered".into()),
            };
            let seed = seed.parse().map_err(|_| "the seed is no number")?;
            let waited = tree.waiting();
            tree.lose(loss, &mut Random::new(seed))
                .map_err(|error| io::Error::from_raw_os_error(error).to_string())?;
            if how == "cut" {
                // Whoever asks for anything waits for these.
                std::mem::forget((faults, tree));
            }
            Ok(format!("{waited} bytes were not synced"))
        }
        ["fail", what, how] => {
            let error = match how {
                "EIO" => Some(libc::EIO),
                "ENOSPC" => Some(libc::ENOSPC),
                "none" => None,
                _ => return Err("fail with EIO, ENOSPC or none".into()),
            };
            match what {
                "read" => faults.read = error,
                "write" => faults.write = error,
                "sync" => faults.sync = error,
                _ => return Err("read, write or sync can fail".into()),
            }
            Ok(String::new())
        }
        ["slow", time] => {
            let time = time.parse().map_err(|_| "the time is no number")?;
            faults.slow = Duration::from_millis(time);
            Ok(String::new())
        }
        ["state"] => Ok(format!(
            "waiting={} syncs={} read={} write={} sync={} slow={}",
            tree.waiting(),
            faults.syncs,
            name(faults.read),
            name(faults.write),
            name(faults.sync),
            faults.slow.as_millis()
        )),
        _ => Err("no such command".into()),
    }
}

/// How a command calls an error.
fn name(error: Option<Errno>) -> &'static str {
    match error {
        Some(libc::ENOSPC) => "ENOSPC",
        Some(_) => "EIO",
        None => "none",
    }
}
