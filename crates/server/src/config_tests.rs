//! What a configuration file may say, and what is said of a wrong one.

use std::{fs, time::Duration};

use super::{ConfigError, LogFormat, ServerConfig};

const SMALLEST: &str = r#"
member = 2
data-dir = "data"
listen-client = "127.0.0.1:2379"
listen-peer = "127.0.0.1:2380"
members = [
    { id = 1, peer = "127.0.0.1:3380" },
    { id = 2, name = "here", peer = "127.0.0.1:2380", client = "127.0.0.1:2379" },
]
"#;

/// Writes a file and reads it as a server does.
fn read(text: &str) -> Result<ServerConfig, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server.toml");
    fs::write(&path, text).unwrap();
    let config = ServerConfig::from_toml(&path);
    if let Ok(config) = &config {
        assert_eq!(config.data_dir, dir.path().join("data"), "relative to the file");
    }
    config
}

/// The smallest file has the documented defaults.
#[test]
fn defaults_are_as_documented() {
    let config = read(SMALLEST).unwrap();
    assert_eq!(config.heartbeat_interval, Duration::from_millis(100));
    assert_eq!(config.election_timeout, Duration::from_millis(1000));
    assert_eq!(config.request_time_max(), Duration::from_secs(7));
    assert_eq!((config.log_format, config.log_level.as_str()), (LogFormat::Text, "info"));
    assert!(!config.volatile_disk);
    let names: Vec<_> = config.members.iter().map(|member| member.display_name()).collect();
    assert_eq!(names, ["server-1", "here"]);
}

/// What is written is read back the same.
#[test]
fn file_round_trips() {
    let mut config = ServerConfig::parse(SMALLEST).unwrap();
    config.request_timeout = Some(Duration::from_millis(250));
    config.heartbeat_interval = Duration::from_secs(3);
    config.election_timeout = Duration::from_secs(30);
    config.log_format = LogFormat::Json;
    config.volatile_disk = true;
    assert_eq!(ServerConfig::parse(&config.to_toml()).unwrap(), config);
}

/// An error names the key, and the file where one is at fault.
#[test]
fn errors_name_the_key() {
    let cases = [
        (format!("heart-beat = 3\n{SMALLEST}"), "heart-beat"),
        (SMALLEST.replace("listen-peer", "listen-pear"), "listen-pear"),
        (SMALLEST.replace("member = 2", "member = 0"), "an id is a number from 1 up"),
        (SMALLEST.replace("member = 2", "member = -2"), "an id is a number from 1 up"),
        (SMALLEST.replace("member = 2", "member = 3"), "members: 3 is not one of them"),
        (SMALLEST.replace("id = 1", "id = 2"), "members: 1 to 7"),
        (SMALLEST.replace("127.0.0.1:3380", "nowhere"), "members: each needs its peer address"),
        (SMALLEST.replace("127.0.0.1:2379\"\nl", "here\"\nl"), "listen-client"),
        (format!("log-format = \"xml\"\n{SMALLEST}"), "log-format"),
        (format!("election-timeout = 50\n{SMALLEST}"), "election timeout"),
    ];
    for (text, expected) in cases {
        let error = read(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} does not name {expected:?}");
    }
    let missing = ServerConfig::from_toml(std::path::Path::new("/nowhere/x.toml")).unwrap_err();
    assert!(missing.to_string().starts_with("cannot read /nowhere/x.toml"), "{missing}");
}
