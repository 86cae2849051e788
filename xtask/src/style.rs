//! Colours, where they are wanted.

use std::{
    env,
    io::{self, IsTerminal},
};

/// Whether to colour what goes to a stream.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    colour: bool,
}

impl Style {
    /// For standard output.
    pub fn stdout() -> Self {
        Self::of(io::stdout().is_terminal())
    }

    /// For standard error.
    pub fn stderr() -> Self {
        Self::of(io::stderr().is_terminal())
    }

    /// Never a colour.
    pub const fn plain() -> Self {
        Self { colour: false }
    }

    /// For a heading.
    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// For what is less important.
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// For what is allowed.
    pub fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// For a step, as cargo writes it.
    pub fn bold_green(self, text: &str) -> String {
        self.paint("1;32", text)
    }

    /// For what is denied.
    pub fn red(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// For what is in part allowed.
    pub fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// For what must never be seen.
    pub fn alarm(self, text: &str) -> String {
        self.paint("1;97;41", text)
    }

    fn of(terminal: bool) -> Self {
        // https://no-color.org: any value but the empty one.
        let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colour: terminal && !refused }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
