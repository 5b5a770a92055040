//! The log: what the macros of `tracing` say, as lines of JSON or of text, to where the settings want them.
//!
//! Its parts: `settings` of where and how much, the `line` and its two formats, the `clock`, the `pace` of lines that others
//! bring about.
//! Not here: spans, of which there are none, and what other crates say, which is not for those who run a store.

mod clock;
mod line;
mod pace;
pub mod settings;

use std::fmt;
use std::panic::Location;
use std::sync::OnceLock;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{set_global_default, Interest};
use tracing::{Event, Metadata, Subscriber};

use clock::Moment;
use line::{Fields, Line};
pub use pace::Pace;
pub use settings::Settings;
use settings::{Format, Level, Output};

/// The crates whose lines are ours.
const OURS: [&str; 2] = ["kvstore", "fleet_presence"];

/// Where lines go, in which format, and from which level on.
struct Sink {
    program: &'static str,
    level: Level,
    format: Format,
    outputs: Vec<Output>,
}

static SINK: OnceLock<Sink> = OnceLock::new();
/// Of a program that has no settings for it: a client's, say.
static PLAIN: OnceLock<Sink> = OnceLock::new();

fn sink() -> &'static Sink {
    SINK.get()
        .unwrap_or_else(|| PLAIN.get_or_init(|| Sink::plain("kvstore")))
}

impl Sink {
    fn plain(program: &'static str) -> Self {
        Self {
            program,
            level: Level::Info,
            format: Format::Console,
            outputs: vec![Output::Stderr],
        }
    }

    fn write(&self, line: &Line) {
        let text = self.text(line);
        for output in &self.outputs {
            output.write(text.as_bytes());
        }
    }

    fn text(&self, line: &Line) -> String {
        match self.format {
            Format::Json => line.json(),
            Format::Console => line.console(self.program),
        }
    }
}

/// Lines of `program` go to standard error as text, from `info` on, until [`start`] says otherwise.
pub fn attend(program: &'static str) {
    PLAIN.get_or_init(|| Sink::plain(program));
    // One that is there is this one: nobody else in these programs sets any.
    let _ = set_global_default(Reporter);
}

/// Lines of `program` go where the settings say, from now on. For the first caller in a process alone.
///
/// # Errors
/// A sentence, when the settings make no sense or a file can't be opened.
pub fn start(program: &'static str, settings: &Settings) -> Result<(), String> {
    let sink = Sink {
        program,
        level: settings.level()?,
        format: settings.format()?,
        outputs: settings.outputs()?,
    };
    // There is one log in a process; a second caller has it already.
    let _ = SINK.set(sink);
    attend(program);
    tracing::callsite::rebuild_interest_cache();
    Ok(())
}

/// The wall clock's time so long ago, as lines of JSON have it.
#[must_use]
pub fn ago(time: Duration) -> String {
    Moment::before(time).zap()
}

/// The last line of a program that can't go on. Standard error has it too where all others go to files, since whoever
/// started the program looks there.
#[track_caller]
pub fn fatal(why: &dyn fmt::Display) {
    let line = last(why, Location::caller());
    let sink = sink();
    sink.write(&line);
    if sink.outputs.iter().all(Output::is_file) {
        Output::Stderr.write(line.console(sink.program).as_bytes());
    }
}

/// The last line of a program whose settings make no sense, for all outputs but standard error: whoever gave them reads
/// one sentence there, which is the caller's to print.
#[track_caller]
pub fn refused(why: &dyn fmt::Display) {
    let line = last(why, Location::caller());
    let sink = sink();
    let text = sink.text(&line);
    let others = |output: &&Output| !matches!(output, Output::Stderr);
    for output in sink.outputs.iter().filter(others) {
        output.write(text.as_bytes());
    }
}

fn last(why: &dyn fmt::Display, place: &Location<'_>) -> Line {
    Line {
        at: Moment::now(),
        level: Level::Fatal,
        caller: line::caller(Some(place.file()), Some(place.line())),
        fields: Fields::of_message(why.to_string()),
    }
}

/// A member's or a cluster's id, as it is shown everywhere.
#[must_use]
pub fn hex(id: u64) -> impl fmt::Display {
    struct Hex(u64);
    impl fmt::Display for Hex {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{:x}", self.0)
        }
    }
    Hex(id)
}

/// Makes lines of events; a line that is not wanted costs the comparison of two numbers, by `tracing`'s own cache.
struct Reporter;

impl Subscriber for Reporter {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let crate_name = metadata.target().split("::").next().unwrap_or_default();
        metadata.is_event() && OURS.contains(&crate_name) && *metadata.level() <= most()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(most())
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        sink().write(&Line {
            at: Moment::now(),
            level: (*metadata.level()).into(),
            caller: line::caller(metadata.file(), metadata.line()),
            fields,
        });
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The most talkative level that is wanted.
fn most() -> LevelFilter {
    sink().level.into()
}
