//! Lines from a terminal, with history and completion, or from a script.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use rustyline::{
    Config, Context, ExternalPrinter, Helper, completion::Completer, error::ReadlineError,
    highlight::Highlighter, hint::Hinter, history::DefaultHistory, validate::Validator,
};

/// What was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line, without its end.
    Text(String),
    /// Ctrl-C.
    Cancelled,
    /// Ctrl-D, or the end of the script.
    End,
}

/// Reads lines on a thread that may block.
pub(super) struct Editor {
    /// `None` only while a line is being read.
    editor: Option<rustyline::Editor<Completions, DefaultHistory>>,
    history: Option<PathBuf>,
}

/// Prints above the line that is being typed.
pub(super) struct Printer(Box<dyn ExternalPrinter + Send>);

impl Printer {
    /// Prints a whole line.
    pub(super) fn print(&mut self, line: String) {
        // A terminal that is gone ends the prompt by itself.
        let _gone = self.0.print(line);
    }
}

impl Editor {
    pub(super) fn new(history: Option<PathBuf>) -> Result<Self> {
        let config = Config::builder()
            .auto_add_history(true)
            .history_ignore_dups(true)
            .context("setting up the prompt")?
            .build();
        let mut editor = rustyline::Editor::with_config(config).context("setting up the prompt")?;
        editor.set_helper(Some(Completions::default()));
        if let Some(path) = &history {
            // There is none the first time.
            let _missing = editor.load_history(path);
        }
        Ok(Self { editor: Some(editor), history })
    }

    /// A printer, if this terminal can have one.
    pub(super) fn printer(&mut self) -> Option<Printer> {
        let printer = self.editor.as_mut()?.create_external_printer().ok()?;
        Some(Printer(Box::new(printer)))
    }

    /// Reads the next line.
    pub(super) async fn read(&mut self, prompt: &'static str) -> Result<Line> {
        let mut editor = self.editor.take().context("the last line was never finished")?;
        let (editor, line) = tokio::task::spawn_blocking(move || {
            let line = editor.readline(prompt);
            (editor, line)
        })
        .await?;
        self.editor = Some(editor);
        match line {
            Ok(text) => Ok(Line::Text(text)),
            Err(ReadlineError::Interrupted) => Ok(Line::Cancelled),
            Err(ReadlineError::Eof) => Ok(Line::End),
            Err(error) => Err(error).context("reading a line"),
        }
    }
}

impl Drop for Editor {
    fn drop(&mut self) {
        if let (Some(editor), Some(path)) = (&mut self.editor, &self.history) {
            // History is a convenience; not worth a failure at the end.
            let _unwritable = editor.save_history(path);
        }
    }
}

/// Completes commands and their options.
pub(super) struct Completions {
    commands: Vec<(String, Vec<String>)>,
}

impl Default for Completions {
    fn default() -> Self {
        let command = super::Command::command();
        let options = |command: &clap::Command| {
            command
                .get_arguments()
                .filter_map(|arg| Some(format!("--{}", arg.get_long()?)))
                .collect()
        };
        let mut commands: Vec<_> = command
            .get_subcommands()
            .map(|command| (command.get_name().to_owned(), options(command)))
            .collect();
        commands.push(("help".to_owned(), Vec::new()));
        Self { commands }
    }
}

impl Completions {
    /// Where the word at the end of `line` starts, and what it may become.
    pub(super) fn of(&self, line: &str) -> (usize, Vec<String>) {
        let start = line.rfind(char::is_whitespace).map_or(0, |at| at + 1);
        let (before, word) = line.split_at(start);
        let mut found: Vec<String> = match before.split_whitespace().next() {
            None | Some("help") => self.commands.iter().map(|(name, _)| name.clone()).collect(),
            Some(command) => {
                let of_command = self.commands.iter().find(|(name, _)| name == command);
                of_command.map(|(_, options)| options.clone()).unwrap_or_default()
            }
        };
        // Options are offered to those who began one: a key comes first.
        found.retain(|candidate| candidate.starts_with(word) && (start == 0 || !word.is_empty()));
        // What follows a whole word is the next one.
        found.iter_mut().for_each(|candidate| candidate.push(' '));
        (start, found)
    }
}

impl Completer for Completions {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.of(&line[..position]))
    }
}

impl Hinter for Completions {
    type Hint = String;
}

impl Highlighter for Completions {}
impl Validator for Completions {}
impl Helper for Completions {}
