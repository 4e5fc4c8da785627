//! What can be known of a prompt without a terminal and a server.

use clap::Parser as _;

use super::{Command, editor::Completions, first_line};

/// Tab knows commands, and options once one is begun.
#[test]
fn tab_completes_commands_and_options() {
    let completions = Completions::default();
    assert_eq!(completions.of("pu"), (0, vec!["put ".to_owned()]));
    assert_eq!(completions.of("get k --li"), (6, vec!["--limit ".to_owned()]));
    assert_eq!(completions.of("help comp"), (5, vec!["compact ".to_owned()]));
    assert_eq!(completions.of("get "), (4, Vec::new()));
    assert_eq!(completions.of("nothing --x"), (8, Vec::new()));
    let (_, all) = completions.of("");
    assert!(all.len() == 10 && all.contains(&"help ".to_owned()), "{all:?}");
}

/// A wrong line is answered in one line.
#[test]
fn wrong_lines_are_explained_briefly() {
    let refusal = |line: &str| {
        let error = Command::try_parse_from(line.split(' ')).unwrap_err();
        first_line(&error.to_string()).to_owned()
    };
    assert_eq!(refusal("fetch k"), "unrecognized subcommand 'fetch'");
    assert_eq!(
        refusal("get k --limit x"),
        "invalid value 'x' for '--limit <COUNT>': invalid digit found in string"
    );
    assert!(matches!(Command::try_parse_from(["quit"]), Ok(Command::Exit)));
}
