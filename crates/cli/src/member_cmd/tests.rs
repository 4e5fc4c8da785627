//! What members are called, and what is printed of them.

use clap::Parser;
use kvraft_client::proto::etcdserverpb::{Member, ResponseHeader};

use super::{Action, AddArgs, MemberArgs, MemberReply, find, start_command};
use crate::connection::WriteOut;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    member: MemberArgs,
}

fn add(arguments: &str) -> AddArgs {
    let words = ["member", "add"].into_iter().chain(arguments.split(' '));
    match Line::try_parse_from(words).unwrap().member.action {
        Action::Add(args) => args,
        other => panic!("{other:?}"),
    }
}

fn member(id: u64, name: &str, port: u16) -> Member {
    Member {
        id,
        name: name.to_owned(),
        peer_ur_ls: vec![format!("http://10.0.0.{id}:{port}")],
        client_ur_ls: vec![format!("http://10.0.0.{id}:2379")],
        is_learner: false,
    }
}

fn members() -> Vec<Member> {
    vec![member(10, "x", 2380), member(11, "y", 2380), member(12, "a", 2380), member(13, "", 9)]
}

/// A member is found by id, name and peer address, and only when one alone is meant.
#[test]
fn members_are_found_by_what_they_are_called() {
    let members = members();
    let id = |wanted: &str| find(&members, wanted).map(|member| member.id);
    assert_eq!(id("x").unwrap(), 10);
    assert_eq!(id("b").unwrap(), 11);
    assert_eq!(id("0xb").unwrap(), 11);
    assert_eq!(id("000b").unwrap(), 11);
    assert_eq!(id("10.0.0.12:2380").unwrap(), 12);
    assert_eq!(id("http://10.0.0.13:9").unwrap(), 13);
    let error = id("a").unwrap_err().to_string();
    assert_eq!(error, "\"a\" may mean any of a (x), c (a)");
    let error = id("z").unwrap_err().to_string();
    assert!(error.ends_with("there are a (x), b (y), c (a), d (10.0.0.13:9)"), "{error}");
    assert!(id("").is_err(), "the empty name is nobody's");
}

/// The lines are etcdctl's.
#[test]
fn answers_look_like_etcdctls() {
    let header = Some(ResponseHeader { cluster_id: 0xabc, member_id: 10, ..Default::default() });
    let text = |reply: &MemberReply, write_out| {
        String::from_utf8(reply.render(write_out).unwrap()).unwrap()
    };
    let mut list = members();
    list[1].is_learner = true;
    let reply = MemberReply::List { header, members: list[1..].to_vec() };
    assert_eq!(
        text(&reply, WriteOut::Simple),
        "b, started, y, http://10.0.0.11:2380, http://10.0.0.11:2379, true\n\
         c, started, a, http://10.0.0.12:2380, http://10.0.0.12:2379, false\n\
         d, unstarted, , http://10.0.0.13:9, http://10.0.0.13:2379, false\n"
    );
    let reply = MemberReply::List { header, members: list[1..2].to_vec() };
    assert_eq!(
        text(&reply, WriteOut::Json),
        "{\"header\":{\"cluster_id\":2748,\"member_id\":10},\"members\":[{\"ID\":11,\"name\":\"y\",\
         \"peerURLs\":[\"http://10.0.0.11:2380\"],\"clientURLs\":[\"http://10.0.0.11:2379\"],\
         \"isLearner\":true}]}\n"
    );
    let what = "removed from";
    let reply = MemberReply::Changed { what, id: 11, header, members: Vec::new() };
    assert_eq!(text(&reply, WriteOut::Simple), "Member b removed from cluster abc\n");
    let reply = MemberReply::LeaderMoved { header, from: 10, to: 11 };
    assert_eq!(text(&reply, WriteOut::Simple), "Leadership transferred from a to b\n");
    assert_eq!(
        text(&reply, WriteOut::Json),
        "{\"header\":{\"cluster_id\":2748,\"member_id\":10}}\n"
    );
}

/// What starts a new server is printed whole, for addresses and for names of hosts.
#[test]
fn the_start_of_a_new_server_is_printed() {
    let args = add("d --peer http://10.0.0.4:2380 --endpoints 10.0.0.1:2379,b:2379");
    assert_eq!(
        start_command(&args).unwrap(),
        "kvraft server --join 10.0.0.1:2379,b:2379 --name d --data-dir d \
         --listen-client 10.0.0.4:2379 --listen-peer 10.0.0.4:2380"
    );
    let args = add("it's --peer d.example:99 --client 10.0.0.4:7 --learner");
    assert_eq!(
        start_command(&args).unwrap(),
        "kvraft server --join 127.0.0.1:2379 --name 'it'\\''s' --data-dir 'it'\\''s' \
         --listen-client 10.0.0.4:7 --listen-peer 0.0.0.0:99 --advertise-peer d.example:99 --learner"
    );
    for bad in ["member add d", "member add d --peer nowhere", "member add d --peer :1"] {
        assert!(Line::try_parse_from(bad.split(' ')).is_err(), "{bad}");
    }
}
