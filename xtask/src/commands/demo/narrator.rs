//! How the story looks on standard output.

use std::io::{IsTerminal, Write, stdout};

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const CYAN: &str = "\x1b[36m";
const RESET: &str = "\x1b[0m";

/// Prints the story, with colours if somebody watches. A reader who is gone does not end it: the exit code still counts.
pub struct Narrator {
    colours: bool,
}

impl Narrator {
    /// Colours unless standard output is no terminal or `NO_COLOR` is set (<https://no-color.org>).
    pub fn for_stdout() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            colours: wanted && stdout().is_terminal(),
        }
    }

    /// What this is about.
    pub fn title(&self, text: &str) {
        self.line(BOLD, text);
    }

    /// A new act.
    pub fn act(&self, number: usize, text: &str) {
        self.line("", "");
        self.line(BOLD, &format!("{number}. {text}"));
    }

    /// A sentence or two.
    pub fn say(&self, text: &str) {
        self.line("", "");
        for line in text.lines() {
            self.line("", line);
        }
    }

    /// A question, with the cursor left behind it.
    pub fn ask(&self, text: &str) {
        let text = self.painted(BOLD, text);
        let _ = write!(stdout(), "\n{text} ").and_then(|()| stdout().flush());
    }

    /// A command anybody could type here.
    pub fn command(&self, text: &str) {
        self.line("", "");
        self.line(CYAN, &format!("   $ {text}"));
    }

    /// What a command printed, or the content of a file.
    pub fn output(&self, text: &str) {
        for line in text.trim_end().lines() {
            self.line("", format!("   {line}").trim_end());
        }
    }

    /// What somebody other than a command does.
    pub fn deed(&self, text: &str) {
        self.line(DIM, &format!("   {text}"));
    }

    /// A promise that was just kept.
    pub fn kept(&self, text: &str) {
        self.line(GREEN, &format!("   ✓ {text}"));
    }

    fn painted(&self, colour: &str, text: &str) -> String {
        if self.colours && !colour.is_empty() {
            format!("{colour}{text}{RESET}")
        } else {
            text.to_owned()
        }
    }

    fn line(&self, colour: &str, text: &str) {
        let _ = writeln!(stdout(), "{}", self.painted(colour, text));
    }
}
