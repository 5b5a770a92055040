//! One line: its fields as an event has them, and its two formats.

use std::fmt::{self, Write};

use serde_json::Value;
use tracing::field::{Field, Visit};

use super::clock::Moment;
use super::settings::Level;

pub(super) struct Line {
    pub at: Moment,
    pub level: Level,
    /// File and line of who says it.
    pub caller: String,
    pub fields: Fields,
}

/// What an event holds: a sentence, and facts by name.
#[derive(Default)]
pub(super) struct Fields {
    message: String,
    facts: Vec<(String, Value)>,
}

/// The file below `src`, and the line there.
pub(super) fn caller(file: Option<&str>, line: Option<u32>) -> String {
    let file = file.unwrap_or_default();
    let short = file.rsplit_once("/src/").map_or(file, |(_, short)| short);
    format!("{short}:{}", line.unwrap_or_default())
}

impl Fields {
    pub fn of_message(message: String) -> Self {
        Self {
            message,
            facts: Vec::new(),
        }
    }

    /// Names are etcd's in the output, with hyphens, and Rust's in the sources.
    fn take(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => self.facts.push((name.replace('_', "-"), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.take(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.take(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.take(field, value.into());
    }
}

impl Line {
    /// An object with etcd's keys, in its order, and the end of the line.
    pub fn json(&self) -> String {
        let head = [
            ("level", self.level.name().into()),
            ("ts", self.at.zap()),
            ("caller", self.caller.clone()),
            ("msg", self.fields.message.clone()),
        ];
        let head = head.map(|(key, text)| (key.to_owned(), Value::from(text)));
        let mut text = String::new();
        for (key, value) in head.iter().chain(&self.fields.facts) {
            let before = if text.is_empty() { '{' } else { ',' };
            // A string takes whatever is written.
            let _ = write!(text, "{before}{}:{value}", Value::from(key.as_str()));
        }
        text.push_str("}\n");
        text
    }

    /// `TIME LEVEL PROGRAM: SENTENCE: ERROR (name=value, name=value)`, and the end of the line.
    pub fn console(&self, program: &str) -> String {
        let Fields { message, facts } = &self.fields;
        let mut said = message.clone();
        let (errors, rest): (Vec<_>, Vec<_>) = facts.iter().partition(|(key, _)| key == "error");
        for (_, value) in errors {
            said.push_str(": ");
            said.push_str(&plain(value));
        }
        if !rest.is_empty() {
            let rest: Vec<String> = rest
                .iter()
                .map(|(key, value)| format!("{key}={}", plain(value)))
                .collect();
            said.push_str(&format!(" ({})", rest.join(", ")));
        }
        let (at, level) = (self.at.python(), self.level.name().to_uppercase());
        let mut text = format!("{at} {level} {program}: ");
        for character in said.chars() {
            if character.is_control() {
                // Nobody writes a second line, or moves a terminal's cursor, by a name that he chose.
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        text.push('\n');
        text
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str, facts: &[(&str, Value)]) -> Line {
        let facts = facts.iter().map(|(k, v)| ((*k).to_owned(), v.clone()));
        Line {
            at: Moment::now(),
            level: Level::Warn,
            caller: "a.rs:7".into(),
            fields: Fields {
                message: message.into(),
                facts: facts.collect(),
            },
        }
    }

    #[test]
    fn json_holds_what_was_said_whatever_that_was() {
        let hostile = "a \"b\" \\ {c}\n\r\t\u{0}\u{1b}[31m\u{7f}\u{2028}\u{e9}\u{1f600}";
        let said = line(
            hostile,
            &[
                ("n\"ame", hostile.into()),
                ("many", u64::MAX.into()),
                ("few", i64::MIN.into()),
                ("right", true.into()),
            ],
        )
        .json();
        assert_eq!(said.matches('\n').count(), 1, "{said}");
        assert!(said.ends_with("}\n") && !said.contains('\u{1b}'), "{said}");
        let read: serde_json::Map<String, Value> = serde_json::from_str(&said).unwrap();
        assert_eq!(read["msg"], hostile);
        assert_eq!(read["n\"ame"], hostile);
        assert_eq!(
            (&read["level"], &read["caller"]),
            (&"warn".into(), &"a.rs:7".into())
        );
        assert_eq!(
            (&read["many"], &read["few"], &read["right"]),
            (&u64::MAX.into(), &i64::MIN.into(), &true.into())
        );
        assert!(
            said.starts_with("{\"level\":\"warn\",\"ts\":\"20"),
            "{said}"
        );
    }

    #[test]
    fn text_has_the_error_behind_the_sentence_and_stays_one_line() {
        let said = line(
            "it broke\n2026 INFO forged",
            &[
                ("url", "http://h:1".into()),
                ("error", "no\rroad".into()),
                ("term", 7.into()),
            ],
        )
        .console("kvstore");
        let (_, behind) = said.split_once(" WARN ").unwrap();
        assert_eq!(
            behind,
            "kvstore: it broke\\n2026 INFO forged: no\\rroad (url=http://h:1, term=7)\n"
        );
    }

    #[test]
    fn a_caller_is_short() {
        let long = Some("kvstore/src/reactor/alarms.rs");
        assert_eq!(caller(long, Some(86)), "reactor/alarms.rs:86");
        assert_eq!(caller(Some("main.rs"), Some(1)), "main.rs:1");
    }
}
