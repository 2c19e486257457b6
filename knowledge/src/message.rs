//! A message of a channel, as a platform hands it over and as `--messages` files hold it: one JSON object a line.

use std::io::{self, BufRead};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Where a channel lives.
#[derive(
    Clone,
    Copy,
    Debug,
    Deserialize,
    Eq,
    Hash,
    Ord,
    PartialEq,
    PartialOrd,
    Serialize,
    strum::Display,
    strum::EnumString,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Platform {
    /// Slack: text is mrkdwn, with `<@U2>`, `<https://…|label>` and `:emoji:`.
    Slack,
    /// Discord: text is Markdown with `<@123>` and `<:name:123>`.
    Discord,
    /// Reddit: text is Markdown; the text of a post begins with its title and a blank line.
    Reddit,
}

/// One message.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Message {
    /// The platform of the channel.
    pub platform: Platform,
    /// The platform's id of the channel; for Reddit the subreddit's name.
    pub channel: String,
    /// The platform's id of the message. It stays text to its last digit: a number would lose digits.
    pub id: String,
    /// The id of the first message of the thread; null, or the message's own id, for that first message and for what is
    /// in no thread.
    #[serde(default)]
    pub thread: Option<String>,
    /// Who wrote it.
    pub author: Author,
    /// When it was written, to the second.
    pub time: Timestamp,
    /// What the platform returns, markup included.
    pub text: String,
    /// Where people read it.
    #[serde(default)]
    pub permalink: String,
    /// When it was last edited.
    #[serde(default)]
    pub edited: Option<Timestamp>,
    /// An app or the platform itself wrote it. Such a message is kept and carries no facts.
    #[serde(default)]
    pub bot: bool,
    /// What people answered with an emoji.
    #[serde(default)]
    pub reactions: Vec<Reaction>,
}

/// Who wrote a message.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Author {
    /// The platform's id of the person.
    pub id: String,
    /// The name that people see.
    pub name: String,
}

/// How often people answered with one emoji.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Reaction {
    /// The name of the emoji, without colons.
    pub name: String,
    /// How many people.
    pub count: u32,
}

impl Message {
    /// The id of the first message of the thread; the message's own where it is in none.
    pub fn root(&self) -> &str {
        self.thread.as_deref().unwrap_or(&self.id)
    }

    /// Whether another message began the thread.
    pub fn is_reply(&self) -> bool {
        self.root() != self.id
    }
}

/// A line that holds no message.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {number}: {reason}")]
pub struct Malformed {
    /// The number of the line, from 1.
    pub number: u64,
    /// What is wrong with it. It holds nothing of the line's text.
    pub reason: String,
}

/// The longest line that is read. A longer one is malformed.
const LONGEST: usize = 64 * 1024 * 1024;

/// The messages of a JSON Lines file, one a line. Empty lines are passed over.
///
/// A surrogate that stands alone (`\ud83d`), and a byte that is no UTF-8, become U+FFFD: a message is not lost for them.
pub fn read_lines<R: BufRead>(from: R) -> Lines<R> {
    Lines { from, number: 0 }
}

/// See [`read_lines`].
#[derive(Debug)]
pub struct Lines<R> {
    from: R,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    /// The next line without its end; nothing at the end of the file. The second says whether it was cut.
    fn line(&mut self) -> io::Result<Option<(Vec<u8>, bool)>> {
        let (mut line, mut cut, mut any) = (Vec::new(), false, false);
        loop {
            let buffer = self.from.fill_buf()?;
            if buffer.is_empty() {
                return Ok(any.then_some((line, cut)));
            }
            any = true;
            let end = buffer.iter().position(|b| *b == b'\n');
            let part = &buffer[..end.unwrap_or(buffer.len())];
            let room = LONGEST - line.len();
            cut |= part.len() > room;
            line.extend_from_slice(&part[..part.len().min(room)]);
            let used = end.map_or(buffer.len(), |end| end + 1);
            self.from.consume(used);
            if end.is_some() {
                return Ok(Some((line, cut)));
            }
        }
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = io::Result<Result<Message, Malformed>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (line, cut) = match self.line() {
                Ok(line) => line?,
                Err(error) => return Some(Err(error)),
            };
            self.number += 1;
            let mut line = line.as_slice();
            if self.number == 1 {
                line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            let malformed = |reason: String| Malformed {
                number: self.number,
                reason,
            };
            return Some(Ok(if cut {
                Err(malformed(format!(
                    "it is longer than {} MiB",
                    LONGEST / 1024 / 1024
                )))
            } else {
                parse(line).map_err(malformed)
            }));
        }
    }
}

fn parse(line: &[u8]) -> Result<Message, String> {
    let text = String::from_utf8_lossy(line);
    let message: Message = serde_json::from_str(&text)
        .or_else(|error| {
            let repaired = without_lone_surrogates(&text);
            if repaired == text {
                Err(error)
            } else {
                serde_json::from_str(&repaired)
            }
        })
        .map_err(|error| shape(&error))?;
    if message.id.is_empty() || message.channel.is_empty() {
        return Err("a message needs an id and a channel".into());
    }
    Ok(message)
}

/// What is wrong and where; never the values, which may be anything.
fn shape(error: &serde_json::Error) -> String {
    let said = error.to_string();
    let at = format!("at column {}", error.column());
    match error.classify() {
        serde_json::error::Category::Data => match said.split('`').nth(1) {
            Some(field) if said.starts_with("missing field") => format!("the field {field} is missing"),
            _ => format!("a value is not what a message has there, {at}"),
        },
        _ => format!("this is no JSON, {at}"),
    }
}

/// JSON with each escaped surrogate that has no partner replaced.
fn without_lone_surrogates(json: &str) -> String {
    let unit = |at: usize| -> Option<u32> {
        let escape = json.get(at..at + 6)?.strip_prefix("\\u")?;
        escape
            .bytes()
            .all(|b| b.is_ascii_hexdigit())
            .then(|| u32::from_str_radix(escape, 16).ok())?
    };
    let mut repaired = String::with_capacity(json.len());
    let mut done = 0;
    let mut at = 0;
    while let Some(found) = json[at..].find('\\') {
        at += found;
        match unit(at) {
            Some(0xD800..=0xDBFF) if matches!(unit(at + 6), Some(0xDC00..=0xDFFF)) => at += 12,
            Some(0xD800..=0xDFFF) => {
                repaired.push_str(&json[done..at]);
                repaired.push_str("\\ufffd");
                at += 6;
                done = at;
            }
            Some(_) => at += 6,
            // A backslash and what it escapes, which may be a backslash.
            None => at += 1 + json[at + 1..].chars().next().map_or(0, char::len_utf8),
        }
    }
    repaired.push_str(&json[done..]);
    repaired
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"platform":"slack","channel":"C1","id":"1.5","thread":null,"author":{"id":"U1","name":"Mira"},"time":"2026-03-02T10:00:00Z","text":"TEXT","permalink":"","edited":null,"bot":false,"reactions":[]}"#;

    fn read(file: &[u8]) -> Vec<Result<Message, Malformed>> {
        read_lines(file).map(Result::unwrap).collect()
    }

    fn text_of(escaped: &str) -> String {
        read(GOOD.replace("TEXT", escaped).as_bytes())
            .remove(0)
            .unwrap()
            .text
    }

    #[test]
    fn lone_surrogates_lose_no_message() {
        assert_eq!(text_of(r"a\ud83d b"), "a\u{fffd} b");
        assert_eq!(text_of(r"\ude00"), "\u{fffd}");
        assert_eq!(text_of(r"\ud83d\ude00 and \uD83D"), "\u{1f600} and \u{fffd}");
        assert_eq!(text_of(r"\ud83d\ud83d\ude00"), "\u{fffd}\u{1f600}");
        assert_eq!(
            text_of(r"path \\ud83d stays, \ud83d\n goes"),
            "path \\ud83d stays, \u{fffd}\n goes"
        );
        assert_eq!(text_of(r"\ud83d\\ue000"), "\u{fffd}\\ue000");
    }

    #[test]
    fn malformed_lines_are_named_and_the_rest_goes_on() {
        let file = format!(
            "\u{feff}{GOOD}\n\n{{\"platform\":\"slack\"}}\r\nnonsense SECRET\n{}\r\n[]\n{}\n{}",
            GOOD.replace("1.5", "1.6"),
            GOOD.replace("slack", "SECRET"),
            GOOD.replace("1.5", "1.7")
        );
        let lines = read(file.as_bytes());
        let ids: Vec<_> = lines
            .iter()
            .flatten()
            .map(|message| message.id.as_str())
            .collect();
        assert_eq!(ids, ["1.5", "1.6", "1.7"]);
        let malformed: Vec<_> = lines
            .iter()
            .filter_map(|line| line.as_ref().err())
            .map(ToString::to_string)
            .collect();
        assert_eq!(malformed[0], "line 3: the field channel is missing");
        assert!(
            malformed[1].starts_with("line 4: this is no JSON"),
            "{malformed:?}"
        );
        assert_eq!(malformed.len(), 4);
        assert!(
            malformed[3].starts_with("line 7: ") && !malformed.concat().contains("SECRET"),
            "{malformed:?}"
        );
    }

    #[test]
    fn long_lines_and_bytes_that_are_no_text_survive() {
        let long = "x".repeat(1024 * 1024);
        assert_eq!(text_of(&long), long);
        let mut broken = GOOD.as_bytes().to_vec();
        let at = GOOD.find("TEXT").unwrap();
        broken[at] = 0xff;
        assert_eq!(read(&broken).remove(0).unwrap().text, "\u{fffd}EXT");
        assert_eq!(
            read(&GOOD.as_bytes()[..GOOD.len() - 1])
                .remove(0)
                .unwrap_err()
                .number,
            1
        );
    }

    proptest::proptest! {
        #[test]
        fn any_escapes_are_read(units in proptest::collection::vec(0xD7F0u32..0xE010, 0..12)) {
            let escaped: String = units.iter().flat_map(|unit| format!("\\u{unit:04x}").into_bytes()).map(char::from).collect();
            let units: Vec<u16> = units.into_iter().map(|unit| u16::try_from(unit).unwrap()).collect();
            proptest::prop_assert_eq!(text_of(&escaped), String::from_utf16_lossy(&units));
        }

        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            for line in read(&bytes) {
                proptest::prop_assert!(line.is_err());
            }
        }
    }
}
