//! What a configuration file may say, and what is said of a wrong one.

use std::{fs, time::Duration};

use kvraft_base::{MemberId, limits};
use kvraft_proto::etcdserverpb as pb;

use super::{
    ConfigError, ConfigFile, JoinInfo, Limits, LogFormat, MemberConfig, ServerConfig, derived_id,
};

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
    assert_eq!(config.fail_over_jitter, Duration::from_millis(50));
    let quick = format!("election-timeout = 30\nheartbeat-interval = 10\n{SMALLEST}");
    assert_eq!(read(&quick).unwrap().fail_over_jitter, Duration::from_millis(30));
}

/// What is written is read back the same.
#[test]
fn file_round_trips() {
    let mut config = ConfigFile::parse(SMALLEST).unwrap().resolve().unwrap();
    config.request_timeout = Some(Duration::from_millis(250));
    config.heartbeat_interval = Duration::from_secs(3);
    config.election_timeout = Duration::from_secs(30);
    config.log_format = LogFormat::Json;
    config.volatile_disk = true;
    config.lease_reads = true;
    config.clock_drift_max = 500;
    config.limits.retained_entries = 7;
    let text = config.to_toml();
    assert!(text.contains("heartbeat-interval = \"3s\""), "{text}");
    assert!(text.contains("journal-segment-size = \"64MiB\""), "{text}");
    assert_eq!(ConfigFile::parse(&text).unwrap().resolve().unwrap(), config);
}

/// Times and sizes are read with and without a unit.
#[test]
fn units_may_be_written_or_left_out() {
    let more = "heartbeat-interval = \"3s\"\nelection-timeout = 30000\n";
    let limits = "[limits]\njournal-segment-size = 8192\nuncommitted-size = \"1MiB\"\n";
    let config = read(&format!("{more}{SMALLEST}{limits}")).unwrap();
    assert_eq!(config.heartbeat_interval, Duration::from_secs(3));
    assert_eq!(config.election_timeout, Duration::from_secs(30));
    assert_eq!(config.limits.store().segment_size_bytes, 8192);
    assert_eq!(config.raft().uncommitted_bytes_max, 1 << 20);
    assert_eq!(config.limits.retained_entries, Limits::default().retained_entries);
}

/// Names and a token are enough: every server makes the same ids of them, which never change.
#[test]
fn ids_are_made_of_token_and_names() {
    let file = |name: &str, token: &str| {
        ConfigFile::parse(&format!(
            "name = \"{name}\"\ncluster-token = \"{token}\"\ndata-dir = \"d\"\n\
             listen-client = \"127.0.0.1:1\"\nlisten-peer = \"127.0.0.1:2\"\n\
             members = [{{ name = \"a\", peer = \"x:1\" }}, {{ name = \"b\", peer = \"y:1\" }}]"
        ))
        .unwrap()
    };
    let config = file("b", "prod").resolve().unwrap();
    assert_eq!(config.member.0, derived_id("prod", "b"));
    assert_eq!(config.cluster.0, derived_id("prod", ""));
    assert_eq!(config.members[0].id.0, derived_id("prod", "a"));
    // A format: directories that exist must stay valid.
    assert_eq!(derived_id("prod", "b"), PROD_B);
    assert_ne!(file("b", "test").resolve().unwrap().cluster, config.cluster);
    let error = file("c", "prod").resolve().unwrap_err().to_string();
    assert!(error.contains("name: \"c\" is none of the members' names"), "{error}");
    let mut both = file("b", "prod");
    both.member = Some(5);
    assert!(both.resolve().unwrap_err().to_string().contains("not 5"));
    let mut untold = file("b", "prod");
    untold.cluster_token = None;
    assert!(untold.resolve().unwrap_err().to_string().contains("no cluster-token"));
}

/// What `derived_id` made of it on the day that it was written.
const PROD_B: u64 = 2_868_682_901_675_871_610;

/// Any key can be set by a flag, and an error says which and what was near.
#[test]
fn keys_are_set_one_by_one() {
    let mut file = ConfigFile::parse(SMALLEST).unwrap();
    for set in ["limits.retained-entries=100", "log-level=info,h2=debug", "election-timeout = 2s"] {
        file.set(set).unwrap();
    }
    let config = file.clone().resolve().unwrap();
    assert_eq!(config.limits.node().retain_count, 100);
    assert_eq!(config.log_level, "info,h2=debug");
    assert_eq!(config.election_timeout, Duration::from_secs(2));
    for (set, expected) in [
        ("limits.retained=1", "did you mean `retained-entries`?"),
        ("limits.retained-entries=many", "limits.retained-entries=many: invalid type"),
        ("limits.checkpoint-size=8MB", "\"8MB\" is no size"),
        ("limits", "write KEY=VALUE"),
        ("log-level.x=1", "nothing below"),
    ] {
        let error = file.clone().set(set).unwrap_err().to_string();
        assert!(error.contains(expected), "{set}: {error}");
    }
}

/// Every key stands in the documentation, and so do the defaults of the bounds.
#[test]
fn every_key_is_documented() {
    let text = include_str!("../../../docs/configuration.md");
    let mut config = ConfigFile::parse(SMALLEST).unwrap().resolve().unwrap();
    config.request_timeout = Some(Duration::from_secs(7));
    let table: toml::Table = toml::from_str(&config.to_toml()).unwrap();
    let rows = |table: &toml::Table| table.keys().map(|key| format!("| `{key}` |")).collect();
    let mut keys: Vec<String> = rows(&table);
    keys.extend([("name"), ("cluster-token")].map(|key| format!("| `{key}` |")));
    keys.retain(|key| key != "| `limits` |" && key != "| `members` |");
    for (key, value) in table["limits"].as_table().unwrap() {
        keys.push(format!("| `{key}` | {} |", value.to_string().trim_matches('"')));
    }
    for key in keys {
        assert!(text.contains(&key), "docs/configuration.md lacks a row {key}");
    }
}

/// An error names the key, and the file where one is at fault.
#[test]
fn errors_name_the_key() {
    let cases = [
        (format!("heart-beat = 3\n{SMALLEST}"), "heart-beat"),
        (format!("heartbeat = 3\n{SMALLEST}"), "did you mean `heartbeat-interval`?"),
        (SMALLEST.replace("listen-peer", "listen-pear"), "did you mean `listen-peer`?"),
        (SMALLEST.replace("peer = \"127.0.0.1:3380", "pear = \"127"), "did you mean `peer`?"),
        (SMALLEST.replace("member = 2", "member = 0"), "an id is a number from 1 up"),
        (SMALLEST.replace("member = 2", "member = -2"), "an id is a number from 1 up"),
        (SMALLEST.replace("member = 2", ""), "member: neither this server's id"),
        (SMALLEST.replace("id = 1,", ""), "members: 127.0.0.1:3380 needs an id or a name"),
        (SMALLEST.replace("id = 1", "id = 2"), "members: they need different ids"),
        (SMALLEST.replace("127.0.0.1:3380", "nowhere"), "members: each needs its peer address"),
        (SMALLEST.replace("127.0.0.1:2379\"\nl", "here\"\nl"), "listen-client"),
        (format!("log-format = \"xml\"\n{SMALLEST}"), "log-format"),
        (format!("election-timeout = 50\n{SMALLEST}"), "election-timeout = 50ms"),
        (format!("election-timeout = \"2 days\"\n{SMALLEST}"), "\"2 days\" is no time"),
        (format!("fail-over-jitter = \"2s\"\n{SMALLEST}"), "fail-over-jitter = 2s is longer"),
        (
            format!("lease-reads = true\nclock-drift-max = 850000\n{SMALLEST}"),
            "clock-drift-max = 8",
        ),
        (format!("request-timeout = true\n{SMALLEST}"), "request-timeout = true"),
        (format!("{SMALLEST}[limits]\nappend-size = 0"), "limits.append-size = 0"),
        (format!("{SMALLEST}[limits]\njournal-segment-size = 5"), "limits.journal-segment-size"),
        (format!("{SMALLEST}[limits]\nretain = 5"), "unknown field `retain`"),
    ];
    for (text, expected) in cases {
        let error = read(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} does not name {expected:?}");
    }
    let missing = ServerConfig::from_toml(std::path::Path::new("/nowhere/x.toml")).unwrap_err();
    assert!(missing.to_string().starts_with("cannot read /nowhere/x.toml"), "{missing}");
}

/// A new data directory needs a cluster with this server in it; one that exists does not.
#[test]
fn only_a_new_data_directory_needs_this_server_among_the_members() {
    let config = read(SMALLEST).unwrap();
    let members = config.first_members().unwrap();
    assert_eq!(members.voters(), [MemberId(1), MemberId(2)]);
    let info = members.info(MemberId(2)).unwrap();
    assert_eq!(info.name, "here");
    assert_eq!(info.peer_addresses, ["127.0.0.1:2380"]);
    assert_eq!(info.client_addresses, ["127.0.0.1:2379"]);
    assert!(members.info(MemberId(1)).unwrap().client_addresses.is_empty());

    let another = read(&SMALLEST.replace("member = 2", "member = 3\nname = \"new\"")).unwrap();
    let error = another.first_members().unwrap_err().to_string();
    assert!(error.contains("members: 3 is not one of them"), "{error}");
    assert_eq!(another.own_info().name, "new");
    assert_eq!(another.own_info().peer_addresses, ["127.0.0.1:2380"]);
    assert_eq!(ConfigFile::parse(&another.to_toml()).unwrap().resolve().unwrap(), another);

    let mut many = config.clone();
    let member = |id| MemberConfig { id: MemberId(id), ..config.members[0].clone() };
    many.members = (1..=limits::VOTERS_MAX as u64 + 1).map(member).collect();
    many.validate().unwrap();
    let error = many.first_members().unwrap_err().to_string();
    assert!(error.contains("members: 1 to 7"), "{error}");
}

/// Whatever the cluster says, who joins begins as a learner, and knows where the others are.
#[test]
fn who_joins_begins_as_a_learner() {
    let member = |id: u64, is_learner| pb::Member {
        id,
        name: format!("m{id}"),
        peer_ur_ls: vec![format!("http://h{id}:2380")],
        client_ur_ls: Vec::new(),
        is_learner,
    };
    let mut config = read(&SMALLEST.replace("member = 2", "member = 9")).unwrap();
    for list in [
        vec![member(1, false), member(4, true), member(9, false)],
        vec![member(1, false), member(4, true), member(9, true)],
        vec![member(1, false), member(4, true)],
    ] {
        config.join = Some(JoinInfo::from_list(&list).unwrap());
        let members = config.first_members().unwrap();
        assert_eq!(members.to_string(), "(1) learners (4 9)");
        assert_eq!(members.id_max(), MemberId(9));
        assert_eq!(members.info(MemberId(1)).unwrap().peer_addresses, ["h1:2380"]);
    }
    config.join = Some(JoinInfo::from_list(&[member(9, false)]).unwrap());
    assert!(config.first_members().unwrap_err().to_string().contains("no voter is left"));
    assert!(JoinInfo::from_list(&[]).is_err());
}

/// Who joins finds room in its own first configuration, however full the cluster is, and whatever
/// it is in the middle of.
#[test]
fn who_joins_finds_room() {
    let member = |id: u64, is_learner| pb::Member { id, is_learner, ..Default::default() };
    let mut config = read(&SMALLEST.replace("member = 2", "member = 20")).unwrap();
    let learners = (2..=1 + limits::LEARNERS_MAX as u64).map(|id| member(id, true));
    let list: Vec<_> = learners.chain([member(1, false), member(20, false)]).collect();
    config.join = Some(JoinInfo::from_list(&list).unwrap());
    let members = config.first_members().unwrap();
    assert_eq!(members.to_string(), "(1) learners (3 4 5 6 7 8 9 20)");
    let joint = 2 * limits::VOTERS_MAX as u64;
    let list: Vec<_> = (1..=joint).map(|id| member(id, false)).collect();
    config.join = Some(JoinInfo::from_list(&list).unwrap());
    assert_eq!(config.first_members().unwrap().to_string(), "(8 9 10 11 12 13 14) learners (20)");
}

/// Reads by lease are off unless asked for, and then consensus gets the bound on drift.
#[test]
fn leases_are_asked_for() {
    assert_eq!(read(SMALLEST).unwrap().raft().lease, None);
    let config = read(&format!("lease-reads = true\nclock-drift-max = 500\n{SMALLEST}")).unwrap();
    assert_eq!(config.raft().lease.unwrap().drift_ppm_max, 500);
}
