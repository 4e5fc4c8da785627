//! What can be known of a prompt without a terminal and a server.

use std::{path::Path, time::Duration};

use clap::Parser as _;
use kvraft_client::{Completed, Error, OpId, Outcome, proto::mvccpb::KeyValue};

use super::{Command, editor::Completions, first_line, pipelined, settings::Settings};

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

/// Results that come over the channel are printed as KVRaft (Go) prints them.
#[test]
fn results_are_printed_under_their_numbers() {
    let line = |result| pipelined::line(&Completed { op: OpId(3), result });
    assert_eq!(line(Ok(Outcome::Get(None))), "Result: {3 }");
    let found = KeyValue { value: "blue".into(), ..KeyValue::default() };
    assert_eq!(line(Ok(Outcome::Get(Some(found)))), "Result: {3 blue}");
    let lost = Error::SessionLost { count: 3 };
    assert_eq!(line(Err(lost)), "error: operation 3: the session was lost 3 times in a row");
}

/// The shipped file is read, and words that nobody knows are refused.
#[test]
fn a_file_configures_a_client() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/client.toml");
    let settings = Settings::read(Some(Path::new(file))).unwrap();
    assert_eq!(settings.connection().endpoints().len(), 3);
    assert_eq!((settings.ch_capacity, settings.wait_for_all), (None, false));
    let all = "ch-capacity = 1\nwait-for-all = true\ncommand-timeout = \"2s\"";
    let settings: Settings = toml::from_str(all).unwrap();
    assert_eq!(settings.ch_capacity.map(|it| it.get()), Some(1));
    assert_eq!(settings.command_timeout, Some(Duration::from_secs(2)));
    for bad in ["ChCapacity = 1", "ch-capacity = 0", "dial-timeout = \"5\""] {
        assert!(toml::from_str::<Settings>(bad).is_err(), "{bad}");
    }
}
